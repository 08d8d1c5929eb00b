import fc from 'fast-check'
import { beforeAll, expect, it } from 'vitest'
import { kinds } from '../../src/resources/kinds.ts'
import { type Lab, lab, machine, machines } from './fixture.ts'

let server: Lab
beforeAll(async () => {
  server = await lab()
})

const names = fc.constantFrom(
  ...[
    'apiVersion',
    'kind',
    'metadata',
    'spec',
    'status',
    'name',
    'namespace',
    'labels',
    'annotations',
    'uid',
  ],
  ...['finalizers', 'ownerReferences', 'resourceVersion', 'generateName', 'generation', 'deletionTimestamp'],
  ...['disks', 'networks', 'cpu', 'cores', 'memory', 'runStrategy', 'size', 'image', 'url', 'cloudInit'],
  ...['__proto__', 'constructor', 'prototype', 'toString', 'length', '', '0', 'a/b', '$patch'],
)
const scalar = fc.oneof(
  fc.constantFrom(null, true, 0, -1, 1e308, 2 ** 53, 0.1, -0, '', 'web', 'default', '1Gi', '9'.repeat(400)),
  fc.string({ unit: 'binary' }),
  fc.double(),
)
const { value } = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: 'small', withCrossShrink: true }, scalar, tie('list'), tie('object')),
  list: fc.array(tie('value'), { maxLength: 4 }),
  object: fc.array(fc.tuple(names, tie('value')), { maxLength: 5 }).map((pairs) => Object.fromEntries(pairs)),
}))
const types = fc.constantFrom(
  ...['application/json', 'application/merge-patch+json', 'application/json-patch+json', 'application/yaml'],
  ...[
    'application/strategic-merge-patch+json',
    'application/apply-patch+yaml',
    'application/vnd.kubernetes.protobuf',
    'text/plain',
    '',
    'a/b;c=d',
    ';',
  ],
)
const parameters = fc.constantFrom(
  ...[
    '',
    'dryRun=All',
    'dryRun=x',
    'fieldValidation=Strict',
    'fieldValidation=x',
    'limit=1',
    'limit=x',
    'restoreUid=1',
    'resourceVersion=1&resourceVersionMatch=Exact',
    'resourceVersionMatch=NotOlderThan',
    'fieldSelector=metadata.name%3Dweb,a%5C',
    'sendInitialEvents=x',
    'includeObject=Object',
    'propagationPolicy=Foreground',
    'propagationPolicy=x&orphanDependents=1',
  ],
  ...[
    'labelSelector=a',
    'labelSelector=(',
    'fieldSelector=metadata.name=web',
    'fieldSelector=x',
    'continue=x',
    '%',
    '=',
  ],
  ...['continue=', 'limit=99999999999', 'resourceVersion=x', 'a=1&a=2', '__proto__=1', 'propagationPolicy=x'],
)
const places = kinds.flatMap((kind) => {
  const root = kind.group === '' ? '/api/v1' : `/apis/${kind.group}/${kind.version}`
  const at = `${root}/${kind.namespaced ? 'namespaces/default/' : ''}${kind.plural}`
  return [at, `${at}/web`, `${at}/web/status`]
})
const paths = fc.constantFrom(
  ...places,
  ...[
    `${machines}/web/start`,
    `${machines}/web/log`,
    `${machines}/web/console`,
    `${machines}/${'x'.repeat(400)}`,
  ],
  ...['/api', '/apis', '/openapi/v2', '/metrics', '/livez', '/version', '/x', '/', '/api/v1/namespaces/%41'],
)

it('answers whatever comes with an object or a Status of 4xx', { timeout: 240_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS'),
      ...([paths, parameters, types, value] as const),
      async (method, path, query, type, body) => {
        const url = query === '' ? path : `${path}?${query}`
        const sent = method === 'GET' || method === 'HEAD' ? undefined : (JSON.stringify(body) ?? '')
        const { code, json, text } = await server.call(method, url, sent, { 'content-type': type })
        expect(code, `${method} ${url} ${type} ${sent}: ${text}`).toBeLessThan(500)
        if (code >= 400 && method !== 'HEAD')
          expect(json).toMatchObject({ kind: 'Status', status: 'Failure', code })
      },
    ),
    { numRuns: 3_000 },
  )
  expect(Object.keys(Object.prototype)).toEqual([])
})

it('words what can’t be turned into text by itself', async () => {
  const odd = { toString: 0 }
  const call = (method: string, url: string, body: unknown, type = 'application/json') =>
    server.call(method, url, JSON.stringify(body), { 'content-type': type })
  const strict = `${machines}?fieldValidation=Strict`
  const answers = [
    await call('POST', strict, { kind: odd, strange: 1 }),
    await call('POST', machines, { metadata: { namespace: odd } }),
    await call('PUT', `${machines}/web`, { metadata: { name: odd } }),
    await call('DELETE', `${machines}/web`, { preconditions: { uid: odd, resourceVersion: odd } }),
    await call(
      'PATCH',
      `${machines}/web`,
      [{ op: 'copy', path: odd, from: odd }],
      'application/json-patch+json',
    ),
  ]
  for (const { code, json } of answers) {
    expect(code, JSON.stringify(json)).toBeLessThan(500)
    expect(code).toBeGreaterThanOrEqual(400)
  }
})

it('takes JSON patches of any kind, or refuses them whole', { timeout: 240_000 }, async () => {
  await server.call('DELETE', machines)
  await server.call('POST', machines, machine('web', { disks: [{ name: 'a', size: '1Gi' }] }))
  const step = fc.constantFrom(
    '',
    'metadata',
    'labels',
    'spec',
    'disks',
    '0',
    '-',
    '1e9',
    '4294967295',
    '-1',
    '01',
    '~1',
    '~2',
    'a',
  )
  const pointer = fc.oneof(
    fc.array(step, { maxLength: 5 }).map((steps) => `/${steps.join('/')}`),
    fc.constantFrom(
      '',
      'x',
      '/spec/disks/0',
      '/spec/disks/-',
      '/metadata/labels/a',
      '/__proto__/x',
      '/spec/disks/length',
    ),
  )
  const operation = fc.record(
    {
      op: fc.constantFrom('add', 'remove', 'replace', 'move', 'copy', 'test', 'x'),
      path: fc.oneof(pointer, scalar),
      from: pointer,
      value,
    },
    { requiredKeys: [] },
  )
  const type = { 'content-type': 'application/json-patch+json' }
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 4 }), async (patch) => {
      const before = (await server.call('GET', `${machines}/web`)).json
      const { code, text } = await server.call('PATCH', `${machines}/web`, patch, type)
      expect(code, `${JSON.stringify(patch)}: ${text}`).toBeLessThan(500)
      const after = (await server.call('GET', `${machines}/web`)).json
      if (code >= 400) expect(after).toEqual(before)
      expect(after.spec.disks.length).toBeLessThan(100)
    }),
    { numRuns: 2_000 },
  )
  expect(Object.keys(Object.prototype)).toEqual([])
})

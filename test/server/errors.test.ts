import { beforeAll, expect, it } from 'vitest'
import { kinds } from '../../src/resources/kinds.ts'
import { parsePath } from '../../src/server/path.ts'
import { splitTarget } from '../../src/server/target.ts'
import { type Lab, lab, machine, machines } from './fixture.ts'

let server: Lab
beforeAll(async () => {
  server = await lab()
  await server.call('POST', machines, machine('web'))
})

const yaml = { 'content-type': 'application/yaml' }
const aliases = [
  'a: &a [x,x,x,x]',
  ...'bcdef'.split('').map((c, i) => {
    const before = 'abcdef'[i]
    return `${c}: &${c} [${Array(9).fill(`*${before}`).join(',')}]`
  }),
].join('\n')

const table: readonly [
  name: string,
  request: [method: string, url: string, body?: unknown, headers?: Record<string, string>],
  code: number,
  reason: string,
  message: RegExp,
][] = [
  [
    'unsigned',
    ['GET', machines, undefined, { authorization: '' }],
    401,
    'Unauthorized',
    /^MissingAuthenticationToken: /,
  ],
  [
    'forbidden',
    ['GET', `${machines}/web`, undefined, { authorization: 'Bearer guest' }],
    403,
    'Forbidden',
    /^virtualmachines\.plasmavmc\.io "web" is forbidden: User "guest" cannot get resource "virtualmachines" in API group "plasmavmc\.io" in the namespace "default"$/,
  ],
  ['unsigned metrics', ['GET', '/metrics', undefined, { authorization: '' }], 401, 'Unauthorized', /./],
  [
    'no object',
    ['GET', `${machines}/no`],
    404,
    'NotFound',
    /^virtualmachines\.plasmavmc\.io "no" not found$/,
  ],
  ['no kind', ['GET', '/apis/plasmavmc.io/v1alpha1/nothings'], 404, 'NotFound', /could not find/],
  ['root', ['GET', '/'], 404, 'NotFound', /could not find/],
  ['no URL', ['GET', '//[/x'], 404, 'NotFound', /could not find/],
  ['no subresource', ['GET', `${machines}/web/scale`], 404, 'NotFound', /virtualmachines\/scale/],
  ['built-in name as subresource', ['POST', `${machines}/web/constructor`], 404, 'NotFound', /constructor/],
  ['bad escape', ['GET', `${machines}/%zz`], 400, 'BadRequest', /./],
  ['escaped slash', ['GET', `${machines}/a%2fb`], 400, 'BadRequest', /invalid path segment/],
  [
    'no namespace',
    ['POST', machines.replace('default', 'no'), machine('x')],
    404,
    'NotFound',
    /^namespaces "no" not found$/,
  ],
  ['taken', ['POST', machines, machine('web')], 409, 'AlreadyExists', /already exists/],
  [
    'other namespace',
    ['POST', machines, machine('x', {}, { namespace: 'y' })],
    400,
    'BadRequest',
    /does not match/,
  ],
  ['other name', ['PUT', `${machines}/web`, machine('x')], 400, 'BadRequest', /does not match/],
  ['put on a collection', ['PUT', machines, machine('x')], 405, 'MethodNotAllowed', /./],
  ['get of a verb', ['GET', `${machines}/web/start`], 405, 'MethodNotAllowed', /./],
  [
    'not acceptable',
    ['GET', machines, undefined, { accept: 'application/vnd.kubernetes.protobuf' }],
    406,
    'NotAcceptable',
    /application\/json/,
  ],
  [
    'body type',
    ['POST', machines, 'x', { 'content-type': 'text/plain' }],
    415,
    'UnsupportedMediaType',
    /text\/plain/,
  ],
  [
    'strategic patch',
    ['PATCH', `${machines}/web`, {}, { 'content-type': 'application/strategic-merge-patch+json' }],
    415,
    'UnsupportedMediaType',
    /accepted media types include/,
  ],
  [
    'server-side apply by nobody',
    ['PATCH', `${machines}/web`, 'a: b', { 'content-type': 'application/apply-patch+yaml' }],
    422,
    'Invalid',
    /fieldManager: Required value/,
  ],
  ...(['1e400', '-1', '0', '1.5', '99999999999999999999', '"two"', '{}'] as const).map(
    (cores) =>
      [
        `${cores} cores`,
        ['POST', machines, `{"metadata":{"name":"x"},"spec":{"cpu":{"cores":${cores}}}}`],
        ...([
          422,
          'Invalid',
          /^VirtualMachine\.plasmavmc\.io "x" is invalid: \[?spec\.cpu\.cores: /,
        ] as const),
      ] as never,
  ),
  ['half of JSON', ['POST', machines, '{"metadata":'], 400, 'BadRequest', /not JSON/],
  [
    'broken YAML',
    ['POST', machines, 'a: [1\nb: 2', yaml],
    400,
    'BadRequest',
    /not YAML.* line \d+, column \d+/,
  ],
  ['growing YAML', ['POST', machines, aliases, yaml], 400, 'BadRequest', /alias/],
  ['deep YAML', ['POST', machines, '['.repeat(30_000), yaml], 400, 'BadRequest', /./],
  ['deep JSON', ['POST', machines, `${'['.repeat(500)}${']'.repeat(500)}`], 400, 'BadRequest', /deep/],
  ['no object in the body', ['POST', machines, '[]'], 400, 'BadRequest', /must be an object/],
  [
    'too large',
    ['POST', machines, ' '.repeat(3 * 1024 * 1024 + 1)],
    413,
    'RequestEntityTooLarge',
    /too large/,
  ],
  ['selector', ['GET', `${machines}?labelSelector=%3D`], 400, 'BadRequest', /selector/],
  ['field selector', ['GET', `${machines}?fieldSelector=spec.x%3D1`], 400, 'BadRequest', /not supported/],
  ['limit', ['GET', `${machines}?limit=-x`], 400, 'BadRequest', /limit/],
  ['dry run', ['POST', `${machines}?dryRun=Some`, machine('x')], 400, 'BadRequest', /dryRun/],
  ['watch version', ['GET', `${machines}?watch=1&resourceVersion=x`], 400, 'BadRequest', /resourceVersion/],
  ['watch selector', ['GET', `${machines}?watch=1&labelSelector=%3D`], 400, 'BadRequest', /selector/],
  ['console by GET', ['GET', `${machines}/web/console`], 400, 'BadRequest', /upgrade/],
]

it.each(table)('%s', async (_name, [method, url, body, headers], code, reason, message) => {
  const answer = await server.call(method, url, body, headers)
  expect(answer.json).toMatchObject({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason })
  expect(answer.json.message).toMatch(message)
  expect(answer.code).toBe(code)
})

it('invalid UTF-8 is said', async () => {
  const payload = Buffer.from([0x7b, 0xff, 0x7d])
  const headers = { authorization: 'Bearer admin', 'content-type': 'application/json' }
  const { statusCode, body } = await server.app.inject({ method: 'POST', url: machines, payload, headers })
  expect([statusCode, JSON.parse(body).message]).toEqual([400, 'the body is not valid UTF-8'])
})

it('names every field that is wrong, as Kubernetes does', async () => {
  const disks = [{ name: 'root' }]
  const { code, json } = await server.call(
    'POST',
    machines,
    machine('bad', { disks, runStrategy: 'Sometimes' }),
  )
  expect([code, json.reason, json.details.kind]).toEqual([422, 'Invalid', 'VirtualMachine'])
  expect(json.message).toContain('VirtualMachine.plasmavmc.io "bad" is invalid: ')
  expect(json.message).toContain('spec.runStrategy: Unsupported value: "Sometimes"')
  expect(json.details.causes[0]).toMatchObject({
    reason: 'FieldValueNotSupported',
    field: 'spec.runStrategy',
  })
  const size = await server.call('POST', machines, machine('bad', { disks }))
  expect(size.json.message).toMatch(
    /^VirtualMachine\.plasmavmc\.io "bad" is invalid: spec\.disks\[0\]\.size: Required value/,
  )
})

it('copies in a JSON patch do not fill the memory', async () => {
  const copy = (n: number) => ({ op: 'copy', from: '/metadata', path: `/metadata/x${n}` })
  const type = { 'content-type': 'application/json-patch+json' }
  const patch = Array.from({ length: 60 }, (_, n) => copy(n))
  const { code, json } = await server.call('PATCH', `${machines}/web`, patch, type)
  expect([code, json.reason]).toEqual([413, 'RequestEntityTooLarge'])
})

it('dots in a path are not resolved: what is authorized is what was sent', () => {
  const { pathname } = splitTarget(`${machines}/../leases?x=1`)
  expect(() => parsePath(pathname, kinds)).toThrow('invalid path segment: ".."')
})

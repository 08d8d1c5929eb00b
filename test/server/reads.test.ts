import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Lab, lab, machine, machines } from './fixture.ts'

let server: Lab
beforeAll(async () => {
  server = await lab()
  for (const name of ['a', 'b', 'c', 'd', 'e'])
    await server.call('POST', machines, machine(name, {}, { labels: { app: name } }))
})
afterAll(() => server.app.close())

const get = (query: string, at = machines, headers: Record<string, string> = {}) =>
  server.call('GET', `${at}?${query}`, undefined, headers)
// biome-ignore lint/suspicious/noExplicitAny: lists of many forms
const names = ({ json }: { json: any }) =>
  json.items.map((item: { metadata: { name: string } }) => item.metadata.name).join('')

describe('versions of lists', () => {
  it('goes back to a version exactly, or takes one that is not older', async () => {
    const then = (await get('')).json.metadata.resourceVersion
    await server.call('POST', machines, machine('x'))
    expect(names(await get(`resourceVersion=${then}&resourceVersionMatch=Exact`))).toBe('abcde')
    expect(names(await get(`resourceVersion=${then}&resourceVersionMatch=NotOlderThan`))).toBe('abcdex')
    expect(names(await get(`resourceVersion=${then}`))).toBe('abcdex')
    // A limit makes it exact, as in Kubernetes.
    expect(names(await get(`resourceVersion=${then}&limit=9`))).toBe('abcde')
    expect(names(await get('resourceVersion=0&limit=9'))).toBe('abcdex')
    await server.call('DELETE', `${machines}/x`)
    const paged = await get('limit=2')
    await server.call('POST', machines, machine('b2'))
    const token = paged.json.metadata.continue
    expect(names(await get(`limit=2&continue=${token}`))).toBe('cd')
    await server.call('DELETE', `${machines}/b2`)
  })

  it.each(['Exact', 'NotOlderThan'])(
    '%s of a version that has not come yet is told to try again',
    async (match) => {
      const { code, json } = await get(`resourceVersion=99999&resourceVersionMatch=${match}`)
      expect([code, json.reason]).toEqual([504, 'Timeout'])
      expect(json.details).toMatchObject({
        causes: [{ reason: 'ResourceVersionTooLarge' }],
        retryAfterSeconds: 1,
      })
      expect(json.message).toMatch(/^Too large resource version: 99999, current: \d+$/)
    },
  )

  it('one that history no longer has is Expired, of a list as of its pages', async () => {
    const old = await lab({ historyLimit: 2 })
    for (const name of ['a', 'b']) await old.call('POST', machines, machine(name))
    const page = (await old.call('GET', `${machines}?limit=1`)).json
    for (const name of ['c', 'd', 'e', 'f', 'g', 'h']) await old.call('POST', machines, machine(name))
    const { resourceVersion, continue: token } = page.metadata
    for (const query of [
      `resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`,
      `limit=1&continue=${token}`,
    ]) {
      const { code, json } = await old.call('GET', `${machines}?${query}`)
      expect([code, json.reason]).toEqual([410, 'Expired'])
    }
  })

  const rules: readonly [query: string, message: string][] = [
    [
      'resourceVersionMatch=Exact',
      'Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided',
    ],
    [
      'resourceVersionMatch=Exact&resourceVersion=0',
      'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
    ],
    [
      'resourceVersionMatch=Best&resourceVersion=1',
      'resourceVersionMatch: Unsupported value: "Best": supported values: "Exact", "NotOlderThan"',
    ],
    [
      'resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x',
      'Forbidden: resourceVersionMatch is forbidden when continue is provided',
    ],
    ['sendInitialEvents=true', 'sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list'],
    [
      'watch=1&resourceVersionMatch=NotOlderThan',
      'Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
    ],
    [
      'watch=1&sendInitialEvents=true',
      'Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan',
    ],
    [
      'watch=1&sendInitialEvents=false&resourceVersionMatch=Exact&resourceVersion=1',
      'resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"',
    ],
  ]
  it.each(rules)('%s is refused', async (query, message) => {
    const { code, json } = await get(query)
    expect([code, json.reason]).toEqual([422, 'Invalid'])
    expect(json.message).toMatch(/^ListOptions\.meta\.k8s\.io "" is invalid: /)
    expect(json.message).toContain(message)
  })

  it.each(['resourceVersion=x', 'resourceVersion=5&continue=x', 'watch=1&resourceVersion=-1'])(
    '%s is a bad request',
    async (query) => {
      const { code, json } = await get(query)
      expect([code, json.reason]).toEqual([400, 'BadRequest'])
    },
  )
})

describe('pages', () => {
  it('say how many come after them, where nothing selects', async () => {
    const first = await get('limit=2')
    expect(first.json.metadata.remainingItemCount).toBe(3)
    const token = first.json.metadata.continue
    expect((await get(`limit=2&continue=${token}`)).json.metadata.remainingItemCount).toBe(1)
    for (const all of ['limit=9', 'limit=0', 'limit=-1'])
      expect((await get(all)).json.metadata).not.toHaveProperty('remainingItemCount')
    for (const query of ['limit=2&labelSelector=app', 'limit=2&fieldSelector=metadata.namespace%3Ddefault']) {
      const { metadata } = (await get(query)).json
      expect([typeof metadata.continue, metadata.remainingItemCount]).toEqual(['string', undefined])
    }
  })
})

it('a name in a field selector finds the one, with the other conditions', async () => {
  const of = async (query: string, at = machines) => names(await get(query, at))
  expect(await of('fieldSelector=metadata.name%3Db&limit=1')).toBe('b')
  expect(await of('fieldSelector=metadata.name%3Db,spec.runStrategy%3DHalted')).toBe('')
  expect(await of('fieldSelector=metadata.name%3Db&labelSelector=app%3Da')).toBe('')
  expect(await of('fieldSelector=metadata.name%3Dbb')).toBe('')
  expect(await of('fieldSelector=metadata.name%3D')).toBe('')
  expect(await of(`fieldSelector=metadata.name%3D${encodeURIComponent('\u{10ffff}')}`)).toBe('')
  const everywhere = '/apis/plasmavmc.io/v1alpha1/virtualmachines'
  expect(await of('fieldSelector=metadata.name%3Db', everywhere)).toBe('b')
  expect(await of('fieldSelector=metadata.name%3Ddefault', '/api/v1/namespaces')).toBe('default')
})

describe('forms', () => {
  const as = (name: string) => ({ accept: `application/json;as=${name};g=meta.k8s.io;v=v1` })

  it('metadata alone, of one and of a list', async () => {
    const one = await get('', `${machines}/a`, as('PartialObjectMetadata'))
    expect(one.json).toMatchObject({ kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1' })
    expect([one.json.metadata.name, one.json.spec]).toEqual(['a', undefined])
    const all = await get('limit=2', machines, as('PartialObjectMetadataList'))
    expect(all.json).toMatchObject({ kind: 'PartialObjectMetadataList', metadata: { remainingItemCount: 3 } })
    expect([names(all), all.json.items[0].kind, all.json.items[0].spec]).toEqual([
      ...['ab', 'PartialObjectMetadata', undefined],
    ])
    const watch = await get('watch=1&timeoutSeconds=1', machines, as('PartialObjectMetadata'))
    expect(JSON.parse(watch.text.split('\n')[0]!)).toMatchObject({
      type: 'ADDED',
      object: { kind: 'PartialObjectMetadata', metadata: { name: 'a' } },
    })
  })

  it.each([
    ['a list asked for as one', machines, 'PartialObjectMetadata'],
    ['one asked for as a list', `${machines}/a`, 'PartialObjectMetadataList'],
    ['a watch asked for as a list', `${machines}?watch=1`, 'PartialObjectMetadataList'],
    ['a list asked for as something else', machines, 'Nothing'],
  ])('%s is not acceptable', async (_, url, form) => {
    const { code, json } = await server.call('GET', url, undefined, as(form))
    expect([code, json.reason]).toEqual([406, 'NotAcceptable'])
  })

  it('tables whose rows have the whole object, its metadata or nothing', async () => {
    const row = async (include: string) => {
      const { json } = await get(`includeObject=${include}`, `${machines}/a`, as('Table'))
      return json.rows[0].object
    }
    expect(await row('Object')).toMatchObject({ kind: 'VirtualMachine', spec: { runStrategy: 'Always' } })
    for (const include of ['', 'Metadata'])
      expect(await row(include)).toMatchObject({ kind: 'PartialObjectMetadata' })
    expect(await row('None')).toBeUndefined()
    const { code, json } = await get('includeObject=All', machines, as('Table'))
    expect([code, json.message]).toEqual([
      400,
      expect.stringContaining('includeObject: Invalid value: "All"'),
    ])
  })
})

it('HEAD is no method of resources', async () => {
  const answer = await server.call('HEAD', machines)
  expect([answer.code, answer.text]).toEqual([405, expect.any(String)])
})

it('a namespace is found by its name as a label, which nobody takes off', async () => {
  const namespaces = '/api/v1/namespaces'
  const named = (await get('labelSelector=kubernetes.io%2Fmetadata.name%3Ddefault', namespaces)).json
  expect(named.items.map(({ metadata }: { metadata: { name: string } }) => metadata.name)).toEqual([
    'default',
  ])
  const labels = { a: 'b', 'kubernetes.io/metadata.name': 'other' }
  const body = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels } }
  const own = { a: 'b', 'kubernetes.io/metadata.name': 'shop' }
  expect((await server.call('POST', namespaces, body)).json.metadata.labels).toEqual(own)
  const off = { metadata: { labels: null } }
  const merge = { 'content-type': 'application/merge-patch+json' }
  const after = (await server.call('PATCH', `${namespaces}/shop`, off, merge)).json
  expect(after.metadata.labels).toEqual({ 'kubernetes.io/metadata.name': 'shop' })
})

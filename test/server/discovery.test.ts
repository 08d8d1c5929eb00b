import { beforeAll, describe, expect, it } from 'vitest'
import { type Lab, lab, machine, machines } from './fixture.ts'

let server: Lab
beforeAll(async () => {
  server = await lab()
})

const get = (url: string, headers: Record<string, string> = {}) => server.call('GET', url, undefined, headers)
const aggregatedType = (version: string) =>
  `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`
const protoType = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf'

describe('aggregated discovery', () => {
  it.each(['v2', 'v2beta1'])(
    'says all in one answer, as %s, with exactly the type asked for',
    async (version) => {
      const accept = `${aggregatedType(version)},application/json`
      const [core, named] = await Promise.all(['/api', '/apis'].map((url) => get(url, { accept })))
      expect(core!.headers['content-type']).toBe(aggregatedType(version))
      expect(core!.json).toMatchObject({
        kind: 'APIGroupDiscoveryList',
        apiVersion: `apidiscovery.k8s.io/${version}`,
      })
      const resources = named!.json.items.flatMap((group: { versions: { resources: unknown[] }[] }) =>
        group.versions.flatMap((one) => one.resources),
      )
      const vms = resources.find((one: { resource: string }) => one.resource === 'virtualmachines')
      expect(vms).toMatchObject({
        ...{ scope: 'Namespaced', singularResource: 'virtualmachine', shortNames: ['vm', 'vms'] },
        responseKind: { group: 'plasmavmc.io', version: 'v1alpha1', kind: 'VirtualMachine' },
        categories: ['all', 'plasmavmc'],
      })
      expect(vms.subresources.map((one: { subresource: string }) => one.subresource)).toContain('status')
      const [{ versions }] = core!.json.items
      expect(core!.json.items[0].metadata.name).toBe('')
      const namespaces = versions[0].resources.find(
        (one: { resource: string }) => one.resource === 'namespaces',
      )
      expect(namespaces.verbs).not.toContain('deletecollection')
    },
  )

  it('says the same as of old to who does not know it', async () => {
    expect((await get('/apis')).json.kind).toBe('APIGroupList')
    expect((await get('/api', { accept: 'application/json' })).json).toMatchObject({ versions: ['v1'] })
    const beta = aggregatedType('v9')
    expect((await get('/apis', { accept: `${beta},application/json` })).json.kind).toBe('APIGroupList')
    expect((await get('/apis', { accept: beta })).code).toBe(406)
  })
})

describe('documents', () => {
  it.each(['/api', '/apis', '/apis/plasmavmc.io/v1alpha1', '/openapi/v2', '/openapi/v3'])(
    '%s is not sent again to who has it',
    async (url) => {
      const first = await get(url)
      const etag = String(first.headers['etag'])
      expect(etag).toMatch(/^"[0-9a-f]{64}"$/)
      const again = await get(url, { 'if-none-match': `"x", ${etag}` })
      expect([again.code, again.text, again.headers['content-type']]).toEqual([304, '', undefined])
      expect((await get(url, { 'if-none-match': '"x"' })).code).toBe(200)
    },
  )

  it('differ by what is accepted', async () => {
    const plain = await get('/apis')
    const accept = aggregatedType('v2')
    const other = await get('/apis', { accept, 'if-none-match': String(plain.headers['etag']) })
    expect([other.code, other.headers['vary']]).toEqual([200, 'Accept'])
  })

  it('of OpenAPI 3 stand under their hash and never change there', async () => {
    const { paths } = (await get('/openapi/v3')).json
    const url: string = paths['apis/plasmavmc.io/v1alpha1'].serverRelativeURL
    const document = await get(url)
    expect(document.json.components.schemas).toHaveProperty(['io.plasmavmc.v1alpha1.VirtualMachine'])
    expect(document.headers['cache-control']).toBe('public, immutable')
    const old = await get(url.replace(/hash=.*/, 'hash=old'))
    expect([old.code, old.headers['location']]).toEqual([301, url])
  })

  it('of OpenAPI 2 come as JSON, or in the binary form that kubectl 1.27 asks for', async () => {
    expect((await get('/openapi/v2')).json.swagger).toBe('2.0')
    const { code, headers, text } = await get('/openapi/v2', { accept: protoType })
    expect([code, headers['content-type']]).toEqual([200, protoType.replace('@', '.')])
    expect(text).toContain('io.plasmavmc.v1alpha1.VirtualMachine')
    expect((await get('/openapi/v2', { accept: 'text/html' })).code).toBe(406)
    expect((await get('/openapi/v3', { accept: protoType })).code).toBe(406)
  })
})

it('compresses what is long, for who takes it', async () => {
  const { gunzipSync } = await import('node:zlib')
  const ask = (url: string, encoding: string) =>
    server.app.inject({
      method: 'GET',
      url,
      headers: { authorization: 'Bearer admin', 'accept-encoding': encoding },
    })
  const notes = { annotations: { note: 'x'.repeat(100_000) } }
  for (const name of ['a', 'b']) await server.call('POST', machines, machine(name, {}, notes))
  const plain = await ask(machines, 'identity')
  expect(plain.rawPayload.length).toBeGreaterThan(128 * 1024)
  const packed = await ask(machines, 'br, gzip')
  expect([packed.headers['content-encoding'], packed.headers['vary']]).toEqual(['gzip', 'Accept-Encoding'])
  expect(packed.rawPayload.length).toBeLessThan(10_000)
  expect(gunzipSync(packed.rawPayload).equals(plain.rawPayload)).toBe(true)
  for (const encoding of ['br', 'gzip;q=0', ''])
    expect((await ask(machines, encoding)).headers['content-encoding']).toBeUndefined()
  expect((await ask('/apis', 'gzip')).headers['content-encoding']).toBeUndefined()
  const watch = await ask(`${machines}?watch=1&timeoutSeconds=1`, 'gzip')
  expect([watch.headers['content-encoding'], watch.body.split('\n')[0]]).toEqual([
    undefined,
    expect.stringMatching(/^{"type":"ADDED"/),
  ])
})

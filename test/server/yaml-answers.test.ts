import { execFile } from 'node:child_process'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { type Lab, lab, machine, machines } from './fixture.ts'

const run = promisify(execFile)
const yaml = 'application/yaml'
const as = (form: string, type = yaml) => `${type};as=${form};v=v1;g=meta.k8s.io`
let server: Lab
let address = ''
beforeAll(async () => {
  server = await lab()
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  address = `http://127.0.0.1:${(server.app.server.address() as AddressInfo).port}`
  for (const name of ['web', 'db'])
    await server.call('POST', machines, machine(name, { disks: [{ name: 'root', size: '1Gi' }] }))
})
afterAll(() => server.app.close())

/** What the real curl gets: code, type and the body. */
async function curl(path: string, accept: string, ...more: string[]) {
  const { stdout } = await run('curl', [
    ...['-sS', '--max-time', '30', '-H', 'authorization: Bearer admin', '-H', `accept: ${accept}`],
    ...['-w', '\n%{http_code} %{content_type}', ...more, `${address}${path}`],
  ])
  const at = stdout.lastIndexOf('\n')
  const [code = '', ...type] = stdout.slice(at + 1).split(' ')
  return { code: Number(code), type: type.join(' '), text: stdout.slice(0, at) }
}
const json = async (path: string) => (await server.call('GET', path)).json

describe('as YAML', () => {
  it.each([
    ['an object', `${machines}/web`],
    ['a list', machines],
    ['a page', `${machines}?limit=1`],
    ['what fields choose', `${machines}?fieldSelector=metadata.name%3Dweb`],
    ['nothing', '/api/v1/namespaces/default/configmaps'],
    ['the versions', '/api'],
    ['the groups', '/apis'],
    ['a group', '/apis/plasmavmc.io'],
    ['its resources', '/apis/plasmavmc.io/v1alpha1'],
    ['the core resources', '/api/v1'],
  ])('%s is the same as in JSON', async (_, path) => {
    const { code, type, text } = await curl(path, yaml)
    expect([code, type]).toEqual([200, yaml])
    expect(text).not.toMatch(/^\{/)
    expect(parse(text)).toEqual(await json(path))
  })

  it('a table, and metadata alone', async () => {
    const table = await curl(machines, as('Table'))
    expect(parse(table.text)).toMatchObject({
      kind: 'Table',
      rows: [{ cells: expect.arrayContaining(['db', '512Mi', 1]) }, {}],
    })
    const { text } = await curl(machines, as('PartialObjectMetadataList'))
    expect(parse(text)).toMatchObject({
      kind: 'PartialObjectMetadataList',
      items: [{ metadata: { name: 'db' } }, {}],
    })
  })

  it.each(['v2', 'v2beta1'])('aggregated discovery, as %s', async (version) => {
    const type = `${yaml};g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`
    const answer = await curl('/apis', type)
    expect([answer.code, answer.type]).toEqual([200, type])
    expect(parse(answer.text)).toMatchObject({
      kind: 'APIGroupDiscoveryList',
      apiVersion: `apidiscovery.k8s.io/${version}`,
    })
  })

  it('what is written', async () => {
    const body = 'metadata: {name: made}\nspec: {memory: 2Gi}\n'
    const made = await curl(machines, yaml, '-H', `content-type: ${yaml}`, '--data-binary', body)
    expect([made.code, made.type, parse(made.text).spec.memory]).toEqual([201, yaml, '2Gi'])
    const gone = await curl(`${machines}/made`, yaml, '-X', 'DELETE')
    expect([gone.code, gone.type]).toEqual([200, yaml])
  })

  it.each([
    ['not there', `${machines}/no`, 404, 'NotFound'],
    ['a path of nothing', '/nothing', 404, 'NotFound'],
    ['bad', `${machines}?limit=x`, 400, 'BadRequest'],
  ])('a refusal: %s', async (_, path, code, reason) => {
    const answer = await curl(path, yaml)
    expect([answer.code, answer.type]).toEqual([code, yaml])
    expect(parse(answer.text)).toMatchObject({
      kind: 'Status',
      apiVersion: 'v1',
      status: 'Failure',
      code,
      reason,
    })
  })

  it('a body that is too large', async () => {
    const answer = await curl(
      machines,
      yaml,
      '-H',
      'content-type: application/json',
      '-H',
      'expect: 100-continue',
      '--data-binary',
      `@${process.execPath}`,
    )
    expect([answer.code, answer.type]).toEqual([413, yaml])
    expect(parse(answer.text)).toMatchObject({ kind: 'Status', code: 413 })
  })

  it('a long list is packed for who takes that', async () => {
    const note = { annotations: { note: 'x'.repeat(150_000) } }
    await server.call('POST', machines, machine('long', {}, note))
    const { type, text } = await curl(machines, yaml, '--compressed')
    expect([type, parse(text).items.length]).toEqual([yaml, 3])
    await server.call('DELETE', `${machines}/long`)
  })
})

describe('is given to who likes it best', () => {
  it.each([
    ['', 'application/json'],
    ['*/*', 'application/json'],
    ['application/*', 'application/json'],
    [`${yaml}, application/json`, yaml],
    [`application/json, ${yaml}`, 'application/json'],
    [`application/json;q=0.5, ${yaml};q=0.6`, yaml],
    [`application/json;q=0.6, ${yaml};q=0.5`, 'application/json'],
    [`${yaml};q=0, */*`, 'application/json'],
    [`text/html, ${yaml};q=0.1`, yaml],
    [`${as('Strange')}, ${yaml}`, yaml],
    ['Application/YAML', yaml],
  ])('%s', async (accept, type) => {
    for (const path of [`${machines}/web`, '/apis', '/api/v1', `${machines}/no`])
      expect((await curl(path, accept)).type, path).toBe(type)
  })

  it.each(['text/yaml', `${yaml};q=0`, as('Strange'), 'application/vnd.kubernetes.protobuf'])(
    'and nobody gets it who asks for %s',
    async (accept) => {
      for (const path of [`${machines}/web`, '/apis', '/api/v1']) {
        const { code, type, text } = await curl(path, accept)
        expect([code, type]).toEqual([406, 'application/json'])
        expect(JSON.parse(text)).toMatchObject({
          ...{ kind: 'Status', reason: 'NotAcceptable' },
          message: expect.stringMatching(
            /^only the following media types are accepted: application\/json, application\/yaml/,
          ),
        })
      }
    },
  )
})

it('comes, or is refused, whatever is asked for', { timeout: 120_000 }, async () => {
  const part = fc.constantFrom(
    ...[
      'application/json',
      yaml,
      '*/*',
      'application/*',
      'text/html',
      '',
      ' ',
      ',',
      ';',
      '=',
      'q',
      'q=0',
      'q=x',
      'q=0.3',
    ],
    ...[
      'as=Table',
      'v=v1',
      'g=meta.k8s.io',
      'as=__proto__',
      'as=PartialObjectMetadata',
      'as=APIGroupDiscoveryList',
      '\u00ff',
    ],
  )
  const clause = fc.array(part, { maxLength: 5 }).map((parts) => parts.join(';'))
  const accepts = fc.array(clause, { maxLength: 4 }).map((clauses) => clauses.join(','))
  const path = fc.constantFrom(
    `${machines}/web`,
    machines,
    '/apis',
    '/api/v1',
    '/openapi/v2',
    `${machines}/no`,
  )
  await fc.assert(
    fc.asyncProperty(accepts, path, async (accept, url) => {
      const { code, text, headers } = await server.call('GET', url, undefined, { accept })
      expect([200, 404, 406]).toContain(code)
      const [, syntax] = /^application\/(json|yaml)(;|$)/.exec(String(headers['content-type'])) ?? []
      expect(syntax).toBeDefined()
      expect(syntax === 'yaml' ? parse(text) : JSON.parse(text)).toBeTypeOf('object')
    }),
    { numRuns: 300 },
  )
})

describe('is refused, as by Kubernetes,', () => {
  it.each([
    ['of a watch', `${machines}?watch=1&timeoutSeconds=1`],
    ['of OpenAPI 2', '/openapi/v2'],
    ['of OpenAPI 3', '/openapi/v3'],
    ['of a document of it', '/openapi/v3/apis/plasmavmc.io/v1alpha1'],
  ])('%s', async (_, path) => {
    const { code, type, text } = await curl(path, yaml)
    expect([code, type, parse(text).reason]).toEqual([406, yaml, 'NotAcceptable'])
    expect((await curl(path, `${yaml}, application/json;q=0.1`)).type).toBe('application/json')
  })

  it('while the version is JSON for everybody', async () => {
    expect((await curl('/version', yaml)).type).toContain('application/json')
  })
})

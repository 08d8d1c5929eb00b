import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { machines, merge } from './fixture.ts'
import { type KubectlLab, kubectlLab, manifest } from './kubectl-lab.ts'

const slow = { timeout: 120_000 }
const core = '/api/v1/namespaces/default'
const partOf = 'applyset.kubernetes.io/part-of'
let at: KubectlLab
let folder = ''
beforeAll(async () => {
  at = await kubectlLab()
}, 60_000)
afterAll(() => at.close())
beforeEach(async () => {
  await at.server.call('DELETE', machines)
  for (const kind of ['secrets', 'configmaps']) await at.server.call('DELETE', `${core}/${kind}`)
  folder = join(dirname(at.file('beside', '')), 'set')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
})

const configMap = (name: string, data: object) =>
  JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data })
const put = (name: string, text: string) => writeFileSync(join(folder, `${name}.json`), text)
const take = (name: string) => rmSync(join(folder, `${name}.json`))
const apply = (set: string, ...more: string[]) =>
  at.tried(
    { KUBECTL_APPLYSET: 'true' },
    ...['apply', '--prune', `--applyset=${set}`, '-n', 'default', '-f', folder, ...more],
  )
const names = async (path = machines) =>
  (await at.server.call('GET', path)).json.items.map(
    (one: { metadata: { name: string } }) => one.metadata.name,
  )
const parent = async (path: string) => (await at.server.call('GET', `${core}/${path}`)).json

/** Of what kinds, or of what resources for kubectl 1.27, the members of a set are. */
const kindsOf = ({ annotations }: { annotations: Record<string, string> }) => {
  const contains = 'applyset.kubernetes.io/contains-group'
  return annotations[`${contains}-kinds`] ?? annotations[`${contains}-resources`]
}

describe.each([
  ['a Secret, which kubectl makes', 'web', 'secrets/web'],
  ['a ConfigMap', 'configmap/web', 'configmaps/web'],
])('%s', (_, set, path) => {
  it('is the parent of a set, out of which things are pruned', slow, async () => {
    put('one', manifest('one'))
    put('two', manifest('two'))
    put('settings', configMap('settings', { size: '1' }))
    const made = await apply(set)
    expect(made).toMatch(/one created[\s\S]*settings created[\s\S]*two created/)
    const { metadata, ...rest } = await parent(path)
    expect(metadata).toMatchObject({
      labels: { 'applyset.kubernetes.io/id': expect.stringMatching(/^applyset-.*-v1$/) },
      annotations: {
        'applyset.kubernetes.io/tooling': expect.stringMatching(/^kubectl\/v1\./),
        'applyset.kubernetes.io/additional-namespaces': '',
      },
      managedFields: [{ manager: 'kubectl-applyset', operation: 'Apply' }],
    })
    expect(kindsOf(metadata)).toMatch(/^configmaps?,virtualmachines?\.plasmavmc\.io$/i)
    if (path.startsWith('secrets')) expect(rest).toEqual({ apiVersion: 'v1', kind: 'Secret', type: 'Opaque' })
    const one = (await at.server.call('GET', `${machines}/one`)).json
    expect(one.metadata.labels).toEqual({ [partOf]: metadata.labels['applyset.kubernetes.io/id'] })
    // What is in no set, or in another one, stays.
    await at.server.call('POST', machines, manifest('free'))
    take('two')
    take('settings')
    const pruned = await apply(set)
    expect(pruned).toMatch(/one unchanged/)
    expect(pruned).toMatch(/virtualmachine.plasmavmc.io\/two pruned/)
    expect(pruned).toMatch(/configmap\/settings pruned/)
    expect(await names()).toEqual(['free', 'one'])
    expect(kindsOf((await parent(path)).metadata)).toMatch(/^virtualmachines?\.plasmavmc\.io$/i)
  })

  it('changes nothing the second time', slow, async () => {
    put('one', manifest('one'))
    put('settings', configMap('settings', { size: '1' }))
    await apply(set)
    const before = await at.server.call('GET', machines)
    const again = await apply(set)
    expect(again).toMatch(/one unchanged[\s\S]*settings unchanged/)
    expect(again).not.toMatch(/pruned|configured|created/)
    // The list's version is that of the last write of all.
    expect((await at.server.call('GET', machines)).json).toEqual(before.json)
  })

  it('is left alone by a dry run', slow, async () => {
    put('one', manifest('one'))
    await apply(set)
    take('one')
    put('two', manifest('two'))
    const before = await parent(path)
    for (const how of ['server', 'client']) {
      expect(await apply(set, `--dry-run=${how}`)).toMatch(/one pruned.*dry run/)
      expect(await names()).toEqual(['one'])
      expect(await parent(path)).toEqual(before)
    }
  })

  it('is no parent where it is somebody else’s', slow, async () => {
    put('one', manifest('one'))
    const [plural = '', name] = path.split('/')
    await at.server.call('POST', `${core}/${plural}`, { metadata: { name } })
    expect(await apply(set)).toMatch(/already exists and is missing required annotation/)
    const annotations = { 'applyset.kubernetes.io/tooling': 'helm/v3' }
    await at.server.call('DELETE', `${core}/${path}`)
    await at.server.call('POST', `${core}/${plural}`, { metadata: { name, annotations } })
    expect(await apply(set)).toMatch(/is managed by tooling "helm" instead of "kubectl"/)
    expect(await names()).toEqual([])
  })
})

it('two sets do not touch each other’s objects', slow, async () => {
  put('one', manifest('one'))
  await apply('first')
  take('one')
  put('two', manifest('two'))
  await apply('second')
  expect(await names()).toEqual(['one', 'two'])
  take('two')
  put('three', manifest('three'))
  expect(await apply('second')).toMatch(/two pruned/)
  expect(await names()).toEqual(['one', 'three'])
})

it('what a second set takes over is not pruned by the first', slow, async () => {
  put('one', manifest('one'))
  await apply('first')
  await apply('second')
  take('one')
  put('two', manifest('two'))
  expect(await apply('first')).not.toContain('pruned')
  expect(await names()).toEqual(['one', 'two'])
  expect(await apply('second')).toMatch(/one pruned/)
})

it('what says itself of which set it is, is refused', slow, async () => {
  put('one', manifest('one', {}, { labels: { [partOf]: 'applyset-x-v1' } }))
  expect(await apply('web')).toMatch(/label "applyset.kubernetes.io\/part-of" already set in input data/)
  expect(await names()).toEqual([])
})

it('a parent that others wrote to in between is taken back', slow, async () => {
  const tooling = 'applyset.kubernetes.io/tooling'
  put('one', manifest('one'))
  await apply('web')
  await at.kubectl('annotate', 'secret', 'web', '--overwrite', `${tooling}=kubectl/v1.0.0`)
  expect(await apply('web')).toMatch(
    /failed to update ApplySet: Apply failed with 1 conflict: conflict with "kubectl-annotate"/,
  )
  expect((await parent('secrets/web')).metadata.annotations[tooling]).toMatch(/^kubectl\/v1\.[1-9]/)
})

it('a set applied on the server is pruned, too', slow, async () => {
  put('one', manifest('one'))
  put('two', manifest('two'))
  await apply('served', '--server-side')
  take('two')
  expect(await apply('served', '--server-side')).toMatch(/two pruned/)
  expect(await names()).toEqual(['one'])
})

it('another kind is no parent', slow, async () => {
  put('one', manifest('one'))
  expect(await apply('vm/web')).toMatch(
    /not permitted as an ApplySet parent|identifying allowed custom resource/,
  )
  expect(await names()).toEqual([])
})

describe('ConfigMaps', () => {
  it('are made, changed, edited and shown', slow, async () => {
    const { kubectl } = at
    const file = at.file('app.conf', 'a=1\nb=2\n')
    const binary = at.file('blob', '\u00ff\u0000', 0o600)
    await kubectl(
      'create',
      'configmap',
      'app',
      '--from-literal=k=v',
      `--from-file=${file}`,
      `--from-file=${binary}`,
    )
    expect(await kubectl('get', 'cm')).toMatch(/^NAME +DATA +AGE\napp +3 +\d+s\n$/)
    expect(await kubectl('get', 'cm', 'app', '-o', 'jsonpath={.data.app\\.conf}')).toBe('a=1\nb=2\n')
    expect(await kubectl('describe', 'cm', 'app')).toMatch(/Data\n====\n[\s\S]*k:\n----\nv\n/)
    await kubectl('patch', 'cm', 'app', '-p', '{"data":{"k":"w","blob":null}}')
    expect(await kubectl('get', 'cm', 'app', '-o', 'jsonpath={.data.k}')).toBe('w')
    await expect(kubectl('create', 'cm', 'bad', '--from-literal=k=v', '-n', 'no')).rejects.toThrow(
      'not found',
    )
    const settings = (size: string) => at.file('settings.json', configMap('settings', { size }))
    expect(await kubectl('apply', '-f', settings('1'))).toContain('configmap/settings created')
    expect(await kubectl('apply', '-f', settings('1'))).toContain('configmap/settings unchanged')
    expect(await kubectl('apply', '-f', settings('2'))).toContain('configmap/settings configured')
    expect(await kubectl('explain', 'cm.immutable')).toMatch(/FIELD: immutable <boolean>/)
    expect(await kubectl('delete', 'cm', '--all')).toMatch(/app.*deleted[\s\S]*settings.*deleted/)
  })
})

it('finalizers and owners of a ConfigMap are applied one by one', slow, async () => {
  const { kubectl, server } = at
  const file = (...finalizers: string[]) => {
    const metadata = { name: 'held', finalizers }
    return at.file('held.json', JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata }))
  }
  const held = async () => {
    const { metadata } = await parent('configmaps/held')
    return [metadata.finalizers, metadata.ownerReferences?.map((one: { name: string }) => one.name)]
  }
  // Nobody can tell whether owners of a kind that is not served are gone.
  const pod = { apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'uid-of-p' }
  await kubectl('apply', '-f', file('x.io/a'))
  const patch = { metadata: { finalizers: ['x.io/a', 'x.io/other'], ownerReferences: [pod] } }
  await server.call('PATCH', `${core}/configmaps/held`, patch, { 'content-type': merge })
  await kubectl('apply', '-f', file('x.io/b'))
  expect((await held())[0].toSorted()).toEqual(['x.io/b', 'x.io/other'])
  expect((await held())[1]).toEqual(['p'])
  await kubectl('patch', 'cm', 'held', '-p', '{"metadata":{"finalizers":["x.io/c"]}}')
  expect((await held())[0].toSorted()).toEqual(['x.io/b', 'x.io/c', 'x.io/other'])
  await server.call(
    'PATCH',
    `${core}/configmaps/held`,
    { metadata: { finalizers: null } },
    { 'content-type': merge },
  )
})

it('both go with their owner, and with their namespace', slow, async () => {
  const { kubectl, server } = at
  await kubectl('create', 'namespace', 'shop')
  await kubectl('create', 'configmap', 'app', '-n', 'shop')
  await kubectl('create', 'secret', 'generic', 'app', '-n', 'shop')
  await kubectl('delete', 'namespace', 'shop')
  expect(await kubectl('get', 'cm,secrets', '-A')).toContain('No resources found')
  const owner = (await server.call('POST', machines, manifest('owner'))).json
  const { apiVersion, kind, metadata } = owner
  const ownerReferences = [{ apiVersion, kind, name: metadata.name, uid: metadata.uid }]
  for (const plural of ['configmaps', 'secrets'])
    await server.call('POST', `${core}/${plural}`, { metadata: { name: 'owned', ownerReferences } })
  const gone = kubectl('wait', '--for=delete', 'cm/owned', 'secret/owned', '--timeout=50s')
  await kubectl('delete', 'vm', 'owner')
  await gone
  expect(await kubectl('get', 'cm,secrets')).toContain('No resources found')
})

describe('Secrets', () => {
  it('hold no data, and say so without telling it', slow, async () => {
    const { kubectl, tried } = at
    expect(await kubectl('create', 'secret', 'generic', 'bare')).toContain('secret/bare created')
    expect(await kubectl('get', 'secrets')).toMatch(/^NAME +TYPE +DATA +AGE\nbare +Opaque +0 +\d+s\n$/)
    expect(await kubectl('describe', 'secret', 'bare')).toMatch(/Type: +Opaque/)
    const refused = await tried({}, 'create', 'secret', 'generic', 'full', '--from-literal=p=hunter2')
    expect(refused).toMatch(/data: Forbidden: must be empty/)
    expect(refused).not.toMatch(/hunter2|aHVudGVyMg/)
    const file = at.file(
      's.yaml',
      'apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {p: hunter2}\n',
    )
    expect(await tried({}, 'apply', '-f', file)).toMatch(/stringData: Forbidden: must be empty/)
    expect(await names(`${core}/secrets`)).toEqual(['bare'])
  })
})

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { machines, merge } from './fixture.ts'
import { type KubectlLab, kubectlLab, manifest } from './kubectl-lab.ts'

const slow = { timeout: 120_000 }
const pools = '/apis/plasmavmc.io/v1alpha1/storagepools'
let at: KubectlLab
beforeAll(async () => {
  at = await kubectlLab()
}, 60_000)
afterAll(() => at.close())

const get = async (url: string) => at.server.call('GET', url)
const spec = async (name: string) => (await get(`${machines}/${name}`)).json.spec

it('diffs, edits, replaces, labels and annotates', slow, async () => {
  const { kubectl, tried, file } = at
  const small = file('small.json', manifest('web', { memory: '1Gi' }))
  const large = file('large.json', manifest('web', { memory: '2Gi' }))
  await kubectl('apply', '-f', small)
  expect(await kubectl('diff', '-f', small)).toBe('')
  const diff = await tried({}, 'diff', '-f', large)
  expect(diff).toMatch(/^- +memory: 1Gi$/m)
  expect(diff).toMatch(/^\+ +memory: 2Gi$/m)
  expect((await spec('web')).memory).toBe('1Gi')
  const editor = file('editor', '#!/bin/sh\nsed -i "s/memory: 1Gi/memory: 4Gi/" "$1"\n', 0o700)
  expect(await tried({ KUBE_EDITOR: editor }, 'edit', 'vm', 'web')).toContain('web edited')
  expect((await spec('web')).memory).toBe('4Gi')
  expect(await tried({ KUBE_EDITOR: 'true' }, 'edit', 'vm', 'web')).toContain('Edit cancelled')
  expect(await kubectl('replace', '-f', large)).toContain('web replaced')
  expect((await spec('web')).memory).toBe('2Gi')
  const before = (await get(`${machines}/web`)).json.metadata.uid
  expect(await kubectl('replace', '--force', '-f', small)).toContain('web replaced')
  expect((await get(`${machines}/web`)).json.metadata.uid).not.toBe(before)
  expect(await kubectl('label', 'vm', 'web', 'a=b')).toContain('labeled')
  expect(await kubectl('label', 'vm', '--all', 'a=c', '--overwrite')).toContain('labeled')
  expect(await kubectl('annotate', 'vm', 'web', 'note=x')).toContain('annotate')
  expect((await get(`${machines}/web`)).json.metadata).toMatchObject({
    ...{ labels: { a: 'c' }, annotations: { note: 'x' } },
  })
  expect(await kubectl('label', 'vm', 'web', 'a-')).toContain('unlabeled')
  expect(await kubectl('create', '-f', file('other.json', manifest('other')), '--dry-run=server')).toContain(
    'created (server dry run)',
  )
  expect((await get(`${machines}/other`)).code).toBe(404)
})

it('checks fields as it is told to', slow, async () => {
  const typo = at.file('typo.json', manifest('typo', { memry: '1Gi' }))
  for (const validate of ['true', 'strict'])
    await expect(at.kubectl('create', `--validate=${validate}`, '-f', typo)).rejects.toThrow('spec.memry')
  expect(await at.kubectl('create', '--validate=warn', '-f', typo)).toContain(
    'Warning: unknown field "spec.memry"',
  )
  expect(await at.kubectl('delete', '--wait=false', '-f', typo)).toContain('deleted')
})

describe('deletion', () => {
  /** A pool, and a machine that it owns. */
  async function owned(name: string) {
    const made = await at.server.call('POST', pools, { metadata: { name }, spec: { path: '/srv' } })
    const { uid } = made.json.metadata
    const owner = {
      ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'StoragePool', name, uid },
      blockOwnerDeletion: true,
    }
    const metadata = { name, ownerReferences: [owner], finalizers: ['x.io/y'] }
    await at.server.call('POST', machines, { metadata, spec: { runStrategy: 'Halted' } })
  }
  const metadataOf = async (url: string) => (await get(url)).json.metadata
  const release = (name: string) =>
    at.server.call(
      'PATCH',
      `${machines}/${name}`,
      { metadata: { finalizers: null } },
      { 'content-type': merge },
    )

  it('of an owner in the background, in the foreground, and alone', slow, async () => {
    const { kubectl } = at
    await owned('back')
    expect(await kubectl('delete', 'sp', 'back')).toContain('deleted')
    const deleting = async (name: string) =>
      (await metadataOf(`${machines}/${name}`)).deletionTimestamp !== undefined
    await expect.poll(() => deleting('back'), { timeout: 5_000 }).toBe(true)
    await release('back')

    await owned('front')
    const waits = kubectl('delete', 'sp', 'front', '--cascade=foreground')
    await expect.poll(() => deleting('front'), { timeout: 10_000 }).toBe(true)
    expect((await metadataOf(`${pools}/front`)).finalizers).toEqual(['foregroundDeletion'])
    await release('front')
    expect(await waits).toContain('deleted')
    expect((await get(`${pools}/front`)).code).toBe(404)

    await owned('alone')
    expect(await kubectl('delete', 'sp', 'alone', '--cascade=orphan')).toContain('deleted')
    const left = await metadataOf(`${machines}/alone`)
    expect([left.deletionTimestamp, left.ownerReferences]).toEqual([undefined, undefined])
    await release('alone')
    const wrong = await at.server.call('DELETE', `${machines}/alone`, { propagationPolicy: 'Sideways' })
    expect([wrong.code, wrong.json.reason]).toEqual([422, 'Invalid'])
    const both = { propagationPolicy: 'Orphan', orphanDependents: true }
    expect((await at.server.call('DELETE', `${machines}/alone`, both)).json.message).toContain(
      'cannot be both set',
    )
  })

  it('of a namespace with what is in it', slow, async () => {
    const { kubectl, file } = at
    expect(await kubectl('create', 'namespace', 'shop')).toBe('namespace/shop created\n')
    expect(await kubectl('get', 'ns', 'shop')).toMatch(/shop +Active/)
    await kubectl('apply', '-n', 'shop', '-f', file('a.json', manifest('a', {}, { finalizers: ['x.io/y'] })))
    await kubectl('apply', '-n', 'shop', '-f', file('b.json', manifest('b')))
    expect(await kubectl('delete', 'ns', 'shop', '--wait=false')).toContain('deleted')
    await expect(kubectl('create', '-n', 'shop', '-f', file('c.json', manifest('c')))).rejects.toThrow(
      'because it is being terminated',
    )
    await expect
      .poll(() => kubectl('describe', 'ns', 'shop'), { timeout: 10_000 })
      .toMatch(/Status: +Terminating[\s\S]*NamespaceContentRemaining +True/)
    const waits = kubectl('wait', 'ns/shop', '--for=delete', '--timeout=50s')
    const shop = machines.replace('default', 'shop')
    await at.server.call('PATCH', `${shop}/a`, { metadata: { finalizers: null } }, { 'content-type': merge })
    await waits
    expect((await get('/api/v1/namespaces/shop')).code).toBe(404)
    expect((await get(shop)).json.items).toEqual([])
    await expect(kubectl('delete', 'ns', 'default')).rejects.toThrow('this namespace may not be deleted')
  })

  it('of many by labels, of all, and at most so many of a collection', slow, async () => {
    await at.kubectl('delete', 'vm', '--all')
    for (const name of ['a', 'b', 'c', 'd'])
      await at.server.call('POST', machines, {
        metadata: { name, labels: { odd: `${'ac'.includes(name)}` } },
      })
    expect(await at.kubectl('delete', 'vm', '-l', 'odd=false')).toMatch(/"b" deleted[\s\S]*"d" deleted/)
    const some = await at.server.call('DELETE', `${machines}?limit=1&labelSelector=odd`)
    expect(some.json.items).toHaveLength(1)
    expect((await get(machines)).json.items).toHaveLength(1)
    const none = await at.server.call('DELETE', `${machines}?fieldSelector=metadata.name%3Dno`)
    expect(none.json.items).toHaveLength(0)
    expect(await at.kubectl('delete', 'vm', '--all', '--now')).toContain('deleted')
    expect(await at.kubectl('get', 'vm')).toContain('No resources found')
  })
})

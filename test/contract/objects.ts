import { describe, expect, it } from 'vitest'
import { Event, Lease, Namespace, StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { objectsDeleteContract } from './objects-delete.ts'
import { objectsReadContract } from './objects-read.ts'
import { objectsWatchContract } from './objects-watch.ts'

export interface ObjectsLab {
  /** An empty store. */
  readonly open: (history?: { limit?: number }) => Promise<ObjectStore>
  /** Whether a create may give the uid (`restoreUid`): Kubernetes' does not. */
  readonly restoresUids: boolean
  /** A server of others: what Kubernetes leaves open, or decides by its clock, is not asked of it. */
  readonly foreign?: boolean
}

export function pool(name: string, spec: object = {}, metadata: object = {}): StoragePool {
  return {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'StoragePool' },
    metadata: { name, ...metadata },
    spec: { path: '/p', ...spec },
  } as StoragePool
}

export function vm(name: string, spec: object = {}, metadata: object = {}): VirtualMachine {
  return {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine' },
    metadata: { name, namespace: 'default', ...metadata },
    spec,
  } as VirtualMachine
}

const refused = (reason: string) => expect.objectContaining({ reason })
const uid = '0b3a3a0e-0000-4000-8000-000000000001'

const owner = (change: object) => ({ apiVersion: 'v1', kind: 'X', name: 'x', uid: 'u', ...change })

/** What every ObjectStore promises. */
export function objectsContract(name: string, lab: ObjectsLab): void {
  describe(`${name} as an ObjectStore: writes`, () => {
    it('creates once, with a uid, a time, generation 1 and a version; what a client says of these counts for nothing', async () => {
      const store = await lab.open()
      const claims = { uid, generation: 9, creationTimestamp: '2000-01-01T00:00:00Z' }
      const made = await store.create(StoragePool, pool('a', {}, claims))
      expect(made.metadata).toMatchObject({ name: 'a', generation: 1, resourceVersion: expect.any(String) })
      expect(made.metadata.uid).toMatch(/^[0-9a-f-]{36}$/)
      expect(made.metadata.uid).not.toBe(uid)
      expect(made.metadata.creationTimestamp).toMatch(/^20[2-9]\d-/)
      expect(await store.get(StoragePool, { name: 'a' })).toEqual(made)
      await expect(store.create(StoragePool, pool('a'))).rejects.toThrow(
        'storagepools.plasmavmc.io "a" already exists',
      )
      await expect(store.create(StoragePool, made)).rejects.toEqual(refused('BadRequest'))
    })

    it('lets exactly one of many creators win, and updates of one version likewise', async () => {
      const store = await lab.open()
      const count = async (all: Promise<unknown>[]) =>
        (await Promise.allSettled(all)).filter(({ status }) => status === 'fulfilled').length
      expect(await count(Array.from({ length: 10 }, () => store.create(StoragePool, pool('a'))))).toBe(1)
      const made = await store.get(StoragePool, { name: 'a' })
      const updates = Array.from({ length: 10 }, (_, i) =>
        store.update(StoragePool, { ...made, spec: { ...made.spec, path: `/${i}` } }),
      )
      expect(await count(updates)).toBe(1)
      await expect(store.update(StoragePool, made)).rejects.toThrow(
        /^Operation cannot be fulfilled on storagepools\.plasmavmc\.io "a": the object has been modified/,
      )
    })

    it('names what has only the beginning of a name', async () => {
      const store = await lab.open()
      const begun = { ...pool(''), metadata: { generateName: 'a-' } } as never
      const [one, two] = [await store.create(StoragePool, begun), await store.create(StoragePool, begun)]
      expect(one.metadata).toMatchObject({ name: expect.stringMatching(/^a-.{5}$/), generateName: 'a-' })
      expect(two.metadata.name).not.toBe(one.metadata.name)
    })

    it('counts changes of the spec as generations, and nothing else', async () => {
      const store = await lab.open()
      const first = await store.create(StoragePool, pool('a'))
      expect(await store.update(StoragePool, first)).toEqual(first)
      const second = await store.update(StoragePool, { ...first, spec: { ...first.spec, path: '/q' } })
      expect(second.metadata.generation).toBe(2)
      const metadata = { ...second.metadata, labels: { a: 'b' }, annotations: { c: 'd' } }
      const third = await store.update(StoragePool, { ...second, metadata })
      expect(third.metadata).toMatchObject({ generation: 2, labels: { a: 'b' }, annotations: { c: 'd' } })
      const fourth = await store.updateStatus(StoragePool, {
        ...third,
        status: { conditions: [], available: '1' },
      })
      expect([fourth.metadata.generation, fourth.status?.available]).toEqual([2, '1'])
      expect(fourth.metadata.resourceVersion).not.toBe(third.metadata.resourceVersion)
      const same = await store.updateStatus(StoragePool, fourth)
      expect(same.metadata.resourceVersion).toBe(fourth.metadata.resourceVersion)
    })

    it('does not let an update touch what is the system’s', async () => {
      const store = await lab.open()
      const made = await store.create(StoragePool, pool('a'))
      const { resourceVersion = '' } = made.metadata
      const claims = { name: 'a', resourceVersion, generation: 99, creationTimestamp: '2000-01-01T00:00:00Z' }
      const metadata = { ...claims, deletionTimestamp: '2000-01-01T00:00:00Z', labels: { a: 'b' } }
      const updated = await store.update(StoragePool, { ...made, metadata })
      expect(updated.metadata).toEqual({
        ...made.metadata,
        ...{ labels: { a: 'b' }, resourceVersion: updated.metadata.resourceVersion },
      })
      const foreign = { ...updated, metadata: { ...updated.metadata, uid } }
      await expect(store.update(StoragePool, foreign)).rejects.toEqual(refused('Conflict'))
    })

    it('keeps status apart: neither create nor update writes it, and its update writes nothing else', async () => {
      const store = await lab.open()
      const status = { conditions: [], available: '1' }
      const made = await store.create(StoragePool, { ...pool('a'), status })
      expect(made.status).toBeUndefined()
      const updated = await store.update(StoragePool, { ...made, status, spec: { ...made.spec, path: '/q' } })
      expect(updated.status).toBeUndefined()
      // All but the status may be missing or wrong: it counts for nothing.
      for (const spec of [undefined, {}, { path: 5 }, { path: '/other' }]) {
        const { resourceVersion } = (await store.get(StoragePool, { name: 'a' })).metadata
        const given = { ...updated, metadata: { name: 'a', resourceVersion }, status, spec } as never
        const written = await store.updateStatus(StoragePool, given)
        expect([written.spec.path, written.status?.available]).toEqual(['/q', '1'])
      }
      const wrong = { ...updated, metadata: { name: 'a' }, status: { available: 5 } } as never
      await expect(store.updateStatus(StoragePool, wrong)).rejects.toEqual(refused('Invalid'))
      const ready = { type: 'Ready', status: 'True', reason: 'X', message: '', lastTransitionTime: 'x' }
      const both = { conditions: [ready, { ...ready, status: 'False' }] }
      const twice = { ...updated, metadata: { name: 'a' }, status: both } as never
      await expect(store.updateStatus(StoragePool, twice)).rejects.toThrow(
        'status.conditions[1]: Duplicate value: {"type":"Ready"}',
      )
      const kept = await store.update(StoragePool, { ...updated, metadata: { name: 'a' } })
      expect(kept.status?.available).toBe('1')
      const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' }
      const held = await store.create(Lease, {
        ...{ ...lease, metadata: { name: 'l', namespace: 'default' } },
        spec: { holderIdentity: 'me' },
      })
      expect(held.spec.holderIdentity).toBe('me')
    })

    it('shows defaults and never stores them', async () => {
      const store = await lab.open()
      const made = await store.create(VirtualMachine, vm('web', { disks: [{ name: 'root', size: '1Gi' }] }))
      expect(made.spec.runStrategy).toBe('Always')
      expect(made.spec.disks[0]?.bus).toBeDefined()
      // What is read and written back says nothing new, so nothing is written.
      expect(await store.update(VirtualMachine, made)).toEqual(made)
      const [first] = made.spec.disks
      const disks = [{ name: 'data', size: '2Gi' }, first] as never
      const moved = await store.update(VirtualMachine, { ...made, spec: { ...made.spec, disks } })
      expect(moved.spec.disks.map((disk) => disk.name)).toEqual(['data', 'root'])
      expect(moved.metadata.generation).toBe(2)
    })

    it('drops what the schema does not know, and what is null', async () => {
      const store = await lab.open()
      const spec = { no: 1, cpu: { cores: 2, no: 1, model: null }, disks: null }
      const made = await store.create(VirtualMachine, vm('web', spec))
      expect(made.spec).not.toHaveProperty('no')
      expect(made.spec.cpu).not.toHaveProperty('no')
      expect(made.spec.cpu.cores).toBe(2)
      const selecting = await store.create(VirtualMachine, vm('db', { hostSelector: { a: null, b: 'c' } }))
      expect(selecting.spec.hostSelector).toEqual({ b: 'c' })
    })

    it('says everything that is wrong at once, by field, and writes nothing', async () => {
      const store = await lab.open()
      const wrong = vm(
        'Web_',
        { cpu: { cores: 'two' }, runStrategy: 'Sometimes' },
        { labels: { 'a b': 'c' } },
      )
      const error = await store.create(VirtualMachine, wrong).catch((reason: unknown) => reason)
      expect(error).toMatchObject({ reason: 'Invalid', details: { name: 'Web_' } })
      const { causes } = (error as { details: { causes: { field: string }[] } }).details
      expect(causes.map(({ field }) => field).sort()).toEqual([
        ...['metadata.labels', 'metadata.name', 'spec.cpu.cores', 'spec.runStrategy'],
      ])
      expect((await store.list(VirtualMachine)).items).toEqual([])
    })

    it.each([
      ['a name', { name: 'A' }],
      ['a name with a slash', { name: 'a/b' }],
      ['a name that is too long', { name: 'a'.repeat(254) }],
      ['a namespace', { namespace: 'a/b' }],
      ['a namespace that is too long', { namespace: 'a'.repeat(64) }],
      ['a label name', { labels: { '-a': 'b' } }],
      ['a label name of JavaScript', { labels: JSON.parse('{"__proto__":"b"}') }],
      ['a label value', { labels: { a: 'b c' } }],
      ['a label of another type', { labels: { a: 5 } }],
      ['labels of another type', { labels: 'a' }],
      ['an annotation name', { annotations: { 'a b': 'c' } }],
      ['an annotation of another type', { annotations: { a: {} } }],
      ['annotations that are too large', { annotations: { a: 'x'.repeat(300_000) } }],
      ['a finalizer', { finalizers: ['a b'] }],
      ['finalizers of another type', { finalizers: 5 }],
      ['an owner without a uid', { ownerReferences: [{ apiVersion: 'v1', kind: 'X', name: 'x' }] }],
      ['an owner with an empty name', { ownerReferences: [owner({ name: '' })] }],
      ['an owner of no version', { ownerReferences: [owner({ apiVersion: 'a/b/c' })] }],
      ['an Event as owner', { ownerReferences: [owner({ kind: 'Event' })] }],
      ['two controllers', { ownerReferences: ['a', 'b'].map((name) => owner({ name, controller: true })) }],
      ['both finalizers of a deletion', { finalizers: ['orphan', 'foregroundDeletion'] }],
    ])('refuses %s', async (_, metadata) => {
      const store = await lab.open()
      await expect(store.create(VirtualMachine, vm('web', {}, metadata))).rejects.toEqual(refused('Invalid'))
      expect((await store.list(VirtualMachine)).items).toEqual([])
    })

    it('takes labels and annotations whose names mean something to JavaScript, and null for none', async () => {
      const store = await lab.open()
      const names = { constructor: 'a', prototype: 'b', toString: 'c', hasOwnProperty: 'd' }
      const metadata = { labels: names, annotations: { 'x.io/Y': '', ...names } }
      const made = await store.create(StoragePool, pool('a', {}, metadata))
      expect(made.metadata).toMatchObject(metadata)
      expect((await store.list(StoragePool, { labelSelector: 'constructor=a' })).items).toHaveLength(1)
      const none = { labels: null, annotations: null, finalizers: null, ownerReferences: null }
      await store.create(StoragePool, pool('b', {}, none))
      const empty = await store.create(
        StoragePool,
        pool('c', {}, { labels: { a: null }, annotations: { b: null } }),
      )
      expect(empty.metadata).toMatchObject({ labels: { a: '' }, annotations: { b: '' } })
    })

    it('refuses what is too large for any store', async () => {
      const store = await lab.open()
      const event = {
        ...{ apiVersion: 'v1', kind: 'Event', metadata: { name: 'e', namespace: 'default' } },
        ...{ type: 'Normal', message: 'x'.repeat(1_600_000), involvedObject: {} },
      }
      await expect(store.create(Event, event as never)).rejects.toEqual(refused('RequestEntityTooLarge'))
    })

    it('writes nothing on a dry run, and says what it would have', async () => {
      const store = await lab.open()
      const dryRun = { dryRun: true }
      expect((await store.create(StoragePool, pool('a'), dryRun)).metadata.uid).toBeDefined()
      await expect(store.get(StoragePool, { name: 'a' })).rejects.toEqual(refused('NotFound'))
      const made = await store.create(StoragePool, pool('a'))
      await expect(store.create(StoragePool, pool('a'), dryRun)).rejects.toEqual(refused('AlreadyExists'))
      const changed = { ...made, spec: { ...made.spec, path: '/q' } }
      expect((await store.update(StoragePool, changed, dryRun)).metadata.generation).toBe(2)
      await store.delete(StoragePool, { name: 'a' }, dryRun)
      expect(await store.get(StoragePool, { name: 'a' })).toEqual(made)
    })

    it('says what is not there', async () => {
      const store = await lab.open()
      await expect(store.get(Namespace, { name: 'no' })).rejects.toThrow('namespaces "no" not found')
      await expect(store.get(StoragePool, { name: 'x'.repeat(5_000) })).rejects.toEqual(refused('NotFound'))
      await expect(store.update(StoragePool, pool('no'))).rejects.toEqual(refused('NotFound'))
      await expect(store.delete(StoragePool, { name: 'no' })).rejects.toEqual(refused('NotFound'))
    })

    if (!lab.restoresUids) return
    it('gives a uid back to who had it, once, and only a real one', async () => {
      const store = await lab.open()
      const restoreUid = { restoreUid: true }
      const same = await Promise.allSettled(
        ['a', 'b', 'c'].map((name) => store.create(StoragePool, pool(name, {}, { uid }), restoreUid)),
      )
      expect(same.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
      const { items } = await store.list(StoragePool)
      expect(items.map(({ metadata }) => metadata.uid)).toEqual([uid])
      for (const wrong of ['', 'x', '../../etc', `${uid}\n`, uid.toUpperCase(), `{${uid}}`]) {
        const given = pool('d', {}, { uid: wrong })
        await expect(store.create(StoragePool, given, restoreUid)).rejects.toEqual(refused('Invalid'))
      }
      expect((await store.create(StoragePool, pool('d'), restoreUid)).metadata.uid).toBeDefined()
    })
  })
  objectsReadContract(name, lab)
  objectsDeleteContract(name, lab)
  objectsWatchContract(name, lab)
}

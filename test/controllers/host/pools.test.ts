import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { type PoolLook, reconcilePools } from '../../../src/controllers/host/pools.ts'
import { lookAtPool } from '../../../src/host/pools.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { hostSpec } from '../../../src/resources/host.ts'
import { Host, StoragePool } from '../../../src/resources/kinds.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'

let objects: KvObjects
let seen: PoolLook

beforeEach(() => {
  let uid = 0
  objects = new KvObjects(new MemoryKv(), { clock: new VirtualClock(), newUid: () => `uid-${uid++}` })
  seen = { available: '12.3Gi' }
})

const addPool = (name: string, spec: object = {}) =>
  objects.create(StoragePool, {
    ...{ apiVersion: apiVersionOf(StoragePool), kind: 'StoragePool', metadata: { name } },
    spec: { path: `/pools/${name}`, shared: false, ...spec },
  } as StoragePool)

const addHost = (name: string) =>
  objects.create(Host, {
    ...{ apiVersion: apiVersionOf(Host), kind: 'Host', metadata: { name } },
    spec: hostSpec.parse({}),
  } as Host)

const pool = (name: string) => objects.get(StoragePool, { name })

async function look(): Promise<void> {
  const { items } = await objects.list(StoragePool)
  await reconcilePools({ objects, pools: () => items, look: async () => seen, clock: new VirtualClock() })
}

test('what is free is shown, and written only when it changes', async () => {
  await addPool('fast')
  await look()
  const first = await pool('fast')
  expect(first.status).toMatchObject({
    available: '12.3Gi',
    conditions: [{ type: 'Ready', status: 'True' }],
  })
  await look()
  expect((await pool('fast')).metadata.resourceVersion).toBe(first.metadata.resourceVersion)
})

test('a directory that can’t be used is told, and its figure goes', async () => {
  await addPool('fast')
  await look()
  seen = { problem: '/pools/fast can’t be used: permission denied' }
  await look()
  const { status } = await pool('fast')
  expect(status?.available).toBeUndefined()
  expect(status?.conditions).toMatchObject([
    { status: 'False', reason: 'PathUnusable', message: expect.stringContaining('spec.path: /pools/fast') },
  ])
})

test('of several hosts none speaks for a directory that each has for itself', async () => {
  await Promise.all([addHost('a'), addHost('b'), addPool('local'), addPool('nfs', { shared: true })])
  await look()
  expect((await pool('local')).status).toBeUndefined()
  expect((await pool('nfs')).status?.available).toBe('12.3Gi')
})

test('a real directory, a missing one and a file', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'pv-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'file'), '')
  expect(await lookAtPool(dir)).toMatchObject({ available: expect.stringMatching(/^[\d.]+[KMGTP]i$/) })
  expect(await lookAtPool(join(dir, 'none'))).toMatchObject({ problem: expect.stringContaining('not there') })
  expect(await lookAtPool(join(dir, 'file', 'x'))).toMatchObject({ problem: expect.stringContaining('file') })
})

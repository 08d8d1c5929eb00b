import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import type { KubeObject } from '../../src/resources/define.ts'
import { Namespace, namespaceNamed, StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import type { TextEvent } from '../../src/store/objects.ts'
import { Rendered } from '../../src/store/rendered.ts'
import { objectsContract, pool, vm } from '../contract/objects.ts'

const options = { clock: systemClock, newUid: randomUUID }
const historyOf = ({ limit }: { limit?: number } = {}) => (limit === undefined ? {} : { historyLimit: limit })
const base = mkdtempSync(join(tmpdir(), 'plasmavmc-store-'))
afterAll(() => rmSync(base, { recursive: true }))
const folder = () => mkdtempSync(join(base, 'kv-'))

objectsContract('memory', {
  open: async (history) => new KvObjects(new MemoryKv(historyOf(history)), options),
  restoresUids: true,
})
objectsContract('lmdb', {
  open: async (history) => new KvObjects(await openLmdb(folder(), historyOf(history)), options),
  restoresUids: true,
})

it('stores what the user wrote and no default', async () => {
  const kv = new MemoryKv()
  const objects = new KvObjects(kv, options)
  const made = await objects.create(StoragePool, pool('a'))
  await objects.update(StoragePool, { ...made, spec: { ...made.spec, path: '/q' } })
  const [entry] = (await kv.list('/')).entries
  expect(JSON.parse(entry?.value ?? '').spec).toEqual({ path: '/q' })
})

it('writes the status of an object whose spec is no longer what it must be, and names a field of the status', async () => {
  const kv = new MemoryKv()
  const objects = new KvObjects(kv, options)
  await objects.create(StoragePool, pool('a'))
  const [entry] = (await kv.list('/')).entries
  const before = JSON.parse(entry?.value ?? '')
  const key = entry?.key ?? ''
  const spec = { ...before.spec, capacity: 'as much as there is' }
  await kv.put(key, JSON.stringify({ ...before, spec }), entry?.revision ?? 0n)
  const found = await objects.get(StoragePool, { name: 'a' })
  const status = { conditions: [], available: '1' }
  const written = await objects.updateStatus(StoragePool, { ...found, status })
  expect(written).toMatchObject({ spec, status })
  expect(JSON.parse((await kv.get(key))?.value ?? '')).toMatchObject({ spec, status })
  const wrong = { ...found, metadata: { name: 'a' }, status: { ...status, available: 5 } } as never
  await expect(objects.updateStatus(StoragePool, wrong)).rejects.toMatchObject({
    details: { causes: [{ reason: 'FieldValueTypeInvalid', field: 'status.available' }] },
  })
})

it('gives the same as text, to a list and to every watcher', async () => {
  const objects = new KvObjects(new MemoryKv(), options)
  const stop = new AbortController()
  const watch = async () => {
    const seen: TextEvent[] = []
    const watched = { resourceVersion: '0', signal: stop.signal }
    for await (const event of objects.watchText(StoragePool, watched)) if (seen.push(event) === 3) break
    return seen
  }
  const watching = [watch(), watch()]
  const made = await objects.create(StoragePool, pool('a'))
  const next = await objects.update(StoragePool, { ...made, spec: { ...made.spec, path: '/q' } })
  expect((await objects.listText(StoragePool)).items).toEqual([JSON.stringify(next)])
  const gone = await objects.delete(StoragePool, { name: 'a' })
  for (const seen of await Promise.all(watching)) {
    expect(seen.map(({ type }) => type)).toEqual(['ADDED', 'MODIFIED', 'DELETED'])
    expect(seen.map((event) => JSON.parse(event.text()))).toEqual([made, next, gone])
    expect(seen.map((event) => event.object())).toEqual([made, next, gone])
  }
  stop.abort()
})

it('tells who selects by any test of what comes to pass it and what no longer does', async () => {
  const objects = new KvObjects(new MemoryKv(), options)
  const matches = (object: KubeObject) => (object.spec as { path: string }).path === '/q'
  const made = await objects.create(StoragePool, pool('a'))
  const set = async (path: string) => {
    const one = await objects.get(StoragePool, { name: 'a' })
    await objects.update(StoragePool, { ...one, spec: { ...one.spec, path } })
  }
  for (const path of ['/q', '/r', '/q']) await set(path)
  await objects.delete(StoragePool, { name: 'a' })
  const seen: string[] = []
  const watched = {
    resourceVersion: made.metadata.resourceVersion ?? '',
    signal: new AbortController().signal,
  }
  for await (const event of objects.watchText(StoragePool, { ...watched, matches })) {
    seen.push(`${event.type} ${(event.object().spec as { path: string }).path}`)
    if (seen.length === 4) break
  }
  expect(seen).toEqual(['ADDED /q', 'DELETED /q', 'ADDED /q', 'DELETED /q'])
})

it('creates only in the namespace that was looked at', async () => {
  const objects = new KvObjects(new MemoryKv(), options)
  const { metadata } = await objects.create(Namespace, namespaceNamed('default'))
  const within = { name: 'default', resourceVersion: metadata.resourceVersion ?? '' }
  await objects.create(VirtualMachine, vm('a'), { within })
  await expect(objects.create(VirtualMachine, vm('a'), { within })).rejects.toMatchObject({
    reason: 'AlreadyExists',
  })
  await objects.delete(Namespace, { name: 'default' })
  await expect(objects.create(VirtualMachine, vm('b'), { within })).rejects.toMatchObject({
    reason: 'Conflict',
  })
  expect((await objects.list(VirtualMachine)).items).toHaveLength(1)
})

it('keeps no more texts than fit, the newest of them', () => {
  const rendered = new Rendered(10_000)
  const text = (key: string, revision: bigint) =>
    rendered.textOf(StoragePool, {
      key,
      revision,
      value: JSON.stringify(pool(key, { path: `/${'x'.repeat(1_000)}` })),
    })
  for (let i = 0; i < 100; i += 1) text(`a${i}`, BigInt(i + 1))
  expect(rendered.bytes).toBeLessThanOrEqual(10_000)
  expect(rendered.bytes).toBeGreaterThan(5_000)
  for (let i = 0; i < 100; i += 1) {
    text('a', BigInt(i + 1))
    rendered.forget('a')
  }
  expect(rendered.bytes).toBeLessThanOrEqual(10_000)
  // One that is larger than all may be is given, and not kept.
  expect(text('b', 1n).length).toBeGreaterThan(1_000)
})

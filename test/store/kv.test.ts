import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import type { Kv } from '../../src/store/kv.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { kvContract, put, take } from '../contract/kv.ts'

const base = mkdtempSync(join(tmpdir(), 'plasmavmc-store-'))
afterAll(() => rmSync(base, { recursive: true }))
const folder = () => mkdtempSync(join(base, 'kv-'))
type History = { limit?: number; bytes?: number }
const historyOf = ({ limit, bytes }: History = {}) => ({
  ...(limit !== undefined && { historyLimit: limit }),
  ...(bytes !== undefined && { historyBytes: bytes }),
})

kvContract('memory', { open: async (history) => new MemoryKv(historyOf(history)), tells: true })

const folders = new WeakMap<Kv, string>()
async function openIn(path: string, history?: History): Promise<Kv> {
  const kv = await openLmdb(path, historyOf(history))
  folders.set(kv, path)
  return kv
}
kvContract('lmdb', {
  open: (history) => openIn(folder(), history),
  reopen: async (kv) => {
    await kv.close()
    return openIn(folders.get(kv) ?? '')
  },
  tells: true,
})

it('does not take a history that is not there for one in which nothing happened', async () => {
  const path = folder()
  const kv = await openLmdb(path)
  for (let i = 0; i < 5; i += 1) await put(kv, `/a/${i}`)
  await kv.close()
  const { open } = await import('lmdb')
  const root = open({ path, name: 'plasmavmc', overlappingSync: false, maxDbs: 4, encoding: 'json' })
  await root.openDB({ name: 'log', encoding: 'string' }).clearAsync()
  await root.close()
  const again = await openLmdb(path)
  await expect(take(again, '/a/', 2n, 1)).rejects.toMatchObject({ reason: 'Gone' })
  const watching = take(again, '/a/', 5n, 1)
  await put(again, '/a/5')
  expect((await watching).map(({ revision }) => revision)).toEqual([6n])
  await again.close()
})

it('of what its reader has read and nobody changed since, LMDB reads no value again', async () => {
  const kv = await openLmdb(folder())
  for (const key of ['/a/1', '/a/2', '/a/3']) await put(kv, key)
  const reuse = (key: string, revision: bigint) => `${key} at ${revision}`
  const reused = async () => (await kv.list('/a/', { reuse })).entries.map((entry) => entry.reused)
  expect(await reused()).toEqual([undefined, undefined, undefined])
  expect(await reused()).toEqual(['/a/1 at 1', '/a/2 at 2', '/a/3 at 3'])
  await put(kv, '/a/2', 'changed')
  expect(await reused()).toEqual(['/a/1 at 1', '/a/2 at 4', '/a/3 at 3'])
  await kv.close()
})

it('LMDB gives nothing back that a commit has changed which is in the file, and not known of yet', async () => {
  const kv = await openLmdb(folder())
  let last = await put(kv, '/a/1')
  const reuse = (key: string, revision: bigint) => `${key} at ${revision}`
  await kv.list('/a/', { reuse })
  let met = 0
  for (let turn = 0; turn < 20 || (met === 0 && turn < 1_000); turn += 1) {
    let known = false
    const writing = kv.put('/a/1', `${turn}`, last).then((revision = 0n) => {
      known = true
      last = revision
    })
    for (let i = 0; i < turn % 5; i += 1) await new Promise((resolve) => setImmediate(resolve))
    // The commit goes on in a thread of its own, and who is told of it stands still.
    for (const end = performance.now() + 20; performance.now() < end; );
    const before = last
    const { entries, revision } = await kv.list('/a/', { reuse })
    if (!known && revision > before) met += 1
    const [entry] = entries
    expect(entry?.revision).toBe(revision)
    expect(entry?.reused ?? `/a/1 at ${entry?.revision}`).toBe(`/a/1 at ${revision}`)
    await writing
  }
  expect(met, 'times that the moment was met').toBeGreaterThan(0)
  await kv.close()
})

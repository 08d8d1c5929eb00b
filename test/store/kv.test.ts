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

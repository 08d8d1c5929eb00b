import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Kv } from '../../src/store/kv.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { take } from '../contract/kv.ts'
import { kill, run } from './processes.ts'

const storesEach = 8

/** What a key must hold by what was acknowledged: the last of it, or of what may have followed it unacknowledged. */
const following: Readonly<Record<string, readonly string[]>> = { changed: ['changed', '-'], '-': ['-'] }

function allowed(key: string, acknowledged: string): readonly string[] {
  return following[acknowledged] ?? [key.repeat(20), 'changed', '-']
}

/** The store and its history tell the same story: every event once, without a gap, and its end is what is there. */
async function checkStory(kv: Kv): Promise<Map<string, string>> {
  const { entries, revision } = await kv.list('/')
  const events = await take(kv, '/', 0n, Number(revision))
  expect(events.map((event) => event.revision)).toEqual(events.map((_, i) => BigInt(i) + 1n))
  const end = new Map<string, string>()
  for (const event of events) {
    if (event.type === 'put') end.set(event.key, `${event.revision} ${event.value}`)
    else end.delete(event.key)
  }
  expect(new Map(entries.map((entry) => [entry.key, `${entry.revision} ${entry.value}`]))).toEqual(end)
  return new Map(entries.map(({ key, value }) => [key, value]))
}

/** Kills a process of eight stores again and again, then holds each store to what it acknowledged. */
async function killAndCheck(kills: number, seed: number): Promise<number> {
  const folders = Array.from({ length: storesEach }, () => mkdtempSync(join(tmpdir(), 'plasmavmc-killed-')))
  const acknowledged = folders.map(() => new Map<string, string>())
  for (let round = 0; round < kills; round += 1) {
    // The stores are nearly always in the midst of a commit, each in another place; this varies in which one.
    const writer = await run('writer.ts', [String(round), ...folders], 20 + (((round + seed) * 97) % 200))
    await kill(writer)
    for (const line of writer.lines().slice(1)) {
      const [store = '', key = '', value = ''] = line.split(' ')
      acknowledged[Number(store)]?.set(key, value)
    }
  }
  for (const [i, folder] of folders.entries()) {
    const kv = await openLmdb(folder)
    const kept = await checkStory(kv)
    for (const [key, value] of acknowledged[i] ?? [])
      expect(allowed(key, value)).toContain(kept.get(key) ?? '-')
    for (const [key, value] of kept) expect(allowed(key, key.repeat(20))).toContain(value)
    await kv.close()
    rmSync(folder, { recursive: true })
  }
  return acknowledged.reduce((sum, { size }) => sum + size, 0)
}

it('loses no acknowledged write and tears none when its process is killed (40 kills of eight stores)', {
  timeout: 240_000,
}, async () => {
  const counts = await Promise.all([killAndCheck(20, 0), killAndCheck(20, 1)])
  for (const count of counts) expect(count).toBeGreaterThan(20 * storesEach)
})

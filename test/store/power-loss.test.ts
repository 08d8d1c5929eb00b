import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openLmdb } from '../../src/store/lmdb.ts'
import { diskAt, type Op, operations } from './disk-trace.ts'
import { env } from './processes.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'plasmavmc-power-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

/** What a process that writes did to the disk and when it acknowledged what. */
function trace(rounds: number): Op[] {
  const log = join(folder, 'trace')
  const calls = 'openat,lseek,write,writev,pwrite64,pwritev,fdatasync,fsync,msync,sync_file_range'
  // A disk that flushes so slowly that whoever does not wait for it is seen not to.
  const slow = 'inject=fdatasync,fsync,msync:delay_enter=20000'
  const words = [process.execPath, join(import.meta.dirname, 'ledger.ts'), join(folder, 'd'), String(rounds)]
  execFileSync(
    'strace',
    ['-f', '-xx', '-s', '10000000', '-e', `trace=${calls}`, '-e', slow, '-o', log, ...words],
    {
      env,
    },
  )
  return operations(readFileSync(log, 'latin1'), 'data.mdb')
}

/** A sequence of coin flips that is the same in every run. */
function coin(seed: number, odds: number): () => boolean {
  let state = seed + 1
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return state / 2 ** 31 < odds
  }
}

async function contentOf(disk: Buffer, name: string): Promise<Map<string, string>> {
  const path = join(folder, name)
  mkdirSync(path)
  writeFileSync(join(path, 'data.mdb'), disk)
  const kv = await openLmdb(path)
  const { entries } = await kv.list('/')
  await kv.close()
  rmSync(path, { recursive: true })
  return new Map(entries.map(({ key, value }) => [key, value.split(' ')[0] ?? '']))
}

it('has on the disk what it acknowledged, whenever power fails and whatever of the rest the disk kept', {
  timeout: 120_000,
}, async () => {
  const ops = trace(24)
  const said = ops.filter((op) => op.type === 'say')
  const flushes = ops.filter((op) => op.type === 'flush')
  expect(said).toHaveLength(24 * 3)
  // Many writers share a flush.
  expect(flushes.length).toBeLessThan(said.length)
  for (const [i, { begin }] of said.entries()) {
    const acknowledged = new Map(
      said.slice(0, i + 1).map(({ text }) => text.trim().split(' ') as [string, string]),
    )
    const inFlight = new Set(said.slice(i + 1, i + 6).map(({ text }) => text.trim()))
    for (const odds of [0, 0.5, 1]) {
      const disk = diskAt(ops, begin, coin(i, odds))
      const content = await contentOf(disk, `${i}-${odds}`)
      for (const [key, value] of acknowledged) {
        const found = content.get(key) ?? '-'
        if (found !== value) expect(inFlight).toContain(`${key} ${found}`)
      }
    }
  }
})

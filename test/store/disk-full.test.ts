import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, it } from 'vitest'
import { openLmdb } from '../../src/store/lmdb.ts'
import { env } from './processes.ts'

/** What is said of it, whether a part was stored or nothing: the system's words, once, and none of LMDB's innards. */
const said = /^the store can't be written: (file too large|i\/o error)$/

/** Blocks of 512 bytes that the data file may have. */
const blocks = 4_000

it('refuses writes while the disk is full, keeps what it has, and writes again when there is space', {
  timeout: 120_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'plasmavmc-full-'))
  // A limit on the size of files is to a write what a full disk is: it stores a part, or nothing.
  const script = `trap '' XFSZ; ulimit -S -f ${blocks}; exec "$@"`
  const words = [process.execPath, join(import.meta.dirname, 'filler.ts'), folder]
  const child = spawn('sh', ['-c', script, 'sh', ...words], { stdio: ['pipe', 'pipe', 'pipe'], env })
  const closed = once(child, 'close')
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const full = JSON.parse((await lines.next()).value ?? 'null')
  expect(full.written).toBeGreaterThan(50)
  expect(full.kept).toBe(full.written)
  expect(full.refusal).toEqual({
    reason: 'ServiceUnavailable',
    message: expect.stringMatching(said),
    hint: 'is the disk of the data directory full or read-only?',
  })
  expect(full.trouble, 'what /readyz says').toMatch(said)
  execFileSync('prlimit', ['--pid', String(child.pid), '--fsize=unlimited'])
  child.stdin.write('\n')
  const after = JSON.parse((await lines.next()).value ?? 'null')
  expect(after.stillTroubled, 'a probe finds the room again by itself').toBeUndefined()
  expect(after.told).toEqual(['a write to the store failed', 'the store takes writes again'])
  // What LMDB's native part prints of a write has no line of its own and can't be kept back.
  expect(errors).not.toMatch(/code: \d+|at Function/)
  expect(after.missing).toEqual([])
  expect(after.revision).toBe(full.written + 1)
  expect(after.watched).toEqual(Array.from({ length: after.revision }, (_, i) => i + 1))
  expect((await closed)[0]).toBe(0)
  const kv = await openLmdb(folder)
  expect((await kv.list('/')).entries).toHaveLength(after.revision)
  await kv.close()
  rmSync(folder, { recursive: true })
})

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openLmdb } from '../../src/store/lmdb.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { kvContract } from '../contract/kv.ts'

const folder = () => mkdtempSync(join(tmpdir(), 'plasmavmc-store-'))
const historyOf = (limit?: number) => (limit === undefined ? {} : { historyLimit: limit })

kvContract('memory', async (limit) => new MemoryKv(historyOf(limit)))
kvContract('lmdb', (limit) => openLmdb(folder(), historyOf(limit)))

/** Starts a writer; `lines` grows with its acknowledgements. Resolves once it has `wanted` lines. */
async function write(path: string, round: number, wanted: number) {
  const file = join(import.meta.dirname, 'writer.ts')
  const child = spawn(process.execPath, [file, path, String(round)], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  await new Promise<void>((resolve, reject) => {
    child.once('exit', () => reject(new Error('the writer ended')))
    child.stdout.on('data', (chunk) => {
      text += chunk
      if (text.split('\n').length > wanted) resolve()
    })
  })
  return { child, acknowledged: () => text.split('\n').slice(1, -1) }
}

async function kill(child: ChildProcess) {
  const closed = once(child, 'close')
  child.kill('SIGKILL')
  await closed
}

it('refuses a second process, naming the first, and forgets a killed one', async () => {
  const path = folder()
  const { child } = await write(path, 0, 1)
  await expect(openLmdb(path)).rejects.toMatchObject({
    code: 'FolderInUse',
    message: expect.stringContaining(String(child.pid)),
  })
  await kill(child)
  await (await openLmdb(path)).close()
})

it('loses no acknowledged write and tears none when its process is killed', {
  timeout: 120_000,
}, async () => {
  const path = folder()
  const kills = 200
  const acknowledged: string[] = []
  for (let round = 0; round < kills; round += 1) {
    const writer = await write(path, round, 1 + ((round * 37) % 60))
    await kill(writer.child)
    acknowledged.push(...writer.acknowledged())
  }
  const kv = await openLmdb(path)
  const kept = new Map((await kv.list('/k/')).entries.map(({ key, value }) => [key, value]))
  expect(acknowledged.filter((key) => !kept.has(key))).toEqual([])
  expect([...kept].filter(([key, value]) => value !== key.repeat(20))).toEqual([])
  expect(acknowledged.length).toBeGreaterThan(kills)
  await kv.close()
})

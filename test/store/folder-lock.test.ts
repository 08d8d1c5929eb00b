import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { lockFolder } from '../../src/store/folder-lock.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { env, kill, run } from './processes.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'plasmavmc-lock-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const holder = () => JSON.parse(readFileSync(join(folder, 'owner.json'), 'utf8'))
const pretend = (change: object) =>
  writeFileSync(join(folder, 'owner.json'), JSON.stringify({ ...holder(), ...change }))

it('refuses a second process, naming the first, and is not blocked by a killed one', async () => {
  const first = await run('writer.ts', ['0', folder], 1)
  await expect(openLmdb(folder)).rejects.toMatchObject({
    code: 'FolderInUse',
    message: `${folder} is in use by the process ${first.child.pid}`,
    hint: expect.stringContaining('--data-dir'),
  })
  await kill(first)
  await (await openLmdb(folder)).close()
})

it('is given back, and leaves nothing', async () => {
  const unlock = await lockFolder(folder)
  await expect(lockFolder(folder)).rejects.toMatchObject({ code: 'FolderInUse' })
  await unlock()
  await (await lockFolder(folder))()
  expect(readdirSync(folder)).toEqual([])
})

it('takes a pid that is another process by now, or of another boot, for dead', async () => {
  for (const change of [{ startTime: '1' }, { bootId: 'another' }]) {
    const unlock = await lockFolder(folder)
    pretend(change)
    const again = await lockFolder(folder)
    expect(holder()).toMatchObject({ pid: process.pid })
    await again()
    await unlock()
  }
})

it('takes a file that was torn by a power loss for a dead holder', async () => {
  for (const text of ['', '{"pid":', 'null', '[]', '\0\0\0\0']) {
    writeFileSync(join(folder, 'owner.json'), text)
    await (await lockFolder(folder))()
  }
})

it('sees a holder in another container live, and die, whatever its pid is here', async () => {
  const first = await run('writer.ts', ['0', folder], 1)
  pretend({ pid: 1, startTime: '1', pidNamespace: 'pid:[1]' })
  await expect(openLmdb(folder)).rejects.toMatchObject({
    code: 'FolderInUse',
    message: expect.stringContaining('the process 1'),
  })
  first.child.kill('SIGSTOP')
  await expect(openLmdb(folder)).rejects.toMatchObject({ code: 'FolderInUse' })
  await kill(first)
  await (await openLmdb(folder)).close()
  expect(readdirSync(folder).filter((name) => name.startsWith('owner'))).toEqual([])
})

it('works where the path is longer than that of a socket may be', async () => {
  const long = join(folder, 'x'.repeat(200), 'y'.repeat(200))
  const unlock = await lockFolder(long)
  await expect(lockFolder(long)).rejects.toMatchObject({ code: 'FolderInUse' })
  await unlock()
})

/** A process that waits for the word to try for the lock. */
async function contender(): Promise<{ child: ChildProcess; answer: Promise<string> }> {
  const file = join(import.meta.dirname, 'contender.ts')
  const child = spawn(process.execPath, [file, folder], { stdio: ['pipe', 'pipe', 'inherit'], env })
  let text = ''
  const line = (count: number) =>
    new Promise<string>((resolve, reject) => {
      const look = () => text.split('\n').length > count && resolve(text.split('\n')[count - 1] ?? '')
      child.stdout.on('data', look)
      child.once('close', () => reject(new Error(`the contender ended: ${text}`)))
    })
  child.stdout.on('data', (chunk) => {
    text += chunk
  })
  const answer = line(2)
  answer.catch(() => {})
  await line(1)
  return { child, answer }
}

it('has exactly one winner when many find it stale at the same time', { timeout: 120_000 }, async () => {
  for (let round = 0; round < 4; round += 1) {
    const all = await Promise.all(Array.from({ length: 6 }, contender))
    for (const { child } of all) child.stdin?.end()
    const answers = await Promise.all(all.map(({ answer }) => answer))
    const winners = answers.filter((text) => text.startsWith('mine'))
    expect(winners, answers.join('\n')).toHaveLength(1)
    for (const text of answers) expect(text).toMatch(/^mine|is in use by the process \d+$/)
    for (const { child } of all) {
      if (child.exitCode !== null) continue
      const closed = once(child, 'close')
      child.kill('SIGKILL')
      await closed
    }
  }
  await (await lockFolder(folder))()
})

it('is taken from a chain of holders that died while they took it', async () => {
  const dead = (token: string) => JSON.stringify({ pid: 1, startTime: '1', bootId: 'b', token })
  writeFileSync(join(folder, 'owner.json'), dead('a'))
  writeFileSync(join(folder, 'owner-after-a'), dead('b'))
  writeFileSync(join(folder, 'owner-after-b'), dead('c'))
  const unlock = await lockFolder(folder)
  expect(holder()).toMatchObject({ pid: process.pid })
  expect(readdirSync(folder).filter((name) => name.startsWith('owner-after'))).toEqual([])
  await unlock()
})

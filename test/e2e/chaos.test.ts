import { once } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { deadlineMs, Lab, machinesPath, processOf, tiny, uidOf } from './lab.ts'

const machines = 20
const seed = 20_260_131
const rounds = 24
/** So that no machine is in a long back-off at the end. */
const killsEach = 2

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

/** Numbers in [0, 1): mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const random = randomFrom(seed)
const moment = (longestMs: number) => new Promise((done) => setTimeout(done, random() * longestMs))
const kills = new Map<string, number>()

/** Kills one QEMU that has not been killed too often. */
function killOne(): void {
  const living = lab.qemus().filter(({ uid }) => (kills.get(uid) ?? 0) < killsEach)
  const one = living[Math.floor(random() * living.length)]
  if (!one) return
  kills.set(one.uid, (kills.get(one.uid) ?? 0) + 1)
  process.kill(one.pid, 'SIGKILL')
}

/** Kills the server, perhaps some QEMUs while it is down, perhaps the next server before it is ready. */
async function killServer(): Promise<void> {
  await lab.end()
  while (random() < 0.5) killOne()
  if (random() < 0.3) {
    const starting = lab.serve().catch(() => {})
    await moment(1_500)
    await lab.end()
    await starting
  }
  await lab.serve()
}

test(`twenty machines and their server are killed at random (seed ${seed})`, {
  timeout: 400_000,
}, async () => {
  const watcher = lab.spawn(process.execPath, ['--disable-warning=ExperimentalWarning', twins, lab.dir])
  let watched = ''
  watcher.stdout?.on('data', (chunk: Buffer) => {
    watched += chunk.toString()
  })
  const names = Array.from({ length: machines }, (_, i) => `m${i}`)
  await Promise.all(names.map((name) => lab.create(tiny(name))))
  await lab.until('most machines have a QEMU', () => lab.qemus().length > machines / 2)
  let servers = 0
  for (let round = 0; round < rounds; round++) {
    if (random() < 0.7) killOne()
    else {
      servers++
      await killServer()
    }
    await moment(200)
  }
  expect(servers).toBeGreaterThan(3)
  expect(kills.size).toBeGreaterThan(machines / 3)

  const settled = async () => {
    const { items } = await lab.client.json<{ items: VirtualMachine[] }>('GET', machinesPath)
    const told = items
      .filter((vm) => vm.status?.phase === 'Running')
      .map((vm) => [uidOf(vm), processOf(vm).pid])
    const found = lab.qemus().map(({ uid, pid }) => [uid, pid])
    return told.length === machines && isDeepStrictEqual(told.toSorted(), found.toSorted())
  }
  await lab.until('all are Running, with one QEMU each', settled, 4 * deadlineMs)

  const closed = once(watcher, 'close')
  watcher.kill('SIGTERM')
  await closed
  expect(watched).toMatch(/^looks \d{3,}\n$/)
})

const twins = new URL('twins.ts', import.meta.url).pathname

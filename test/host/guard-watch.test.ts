import { expect, test } from 'vitest'
import { type GuardRecord, tenureOf } from '../../src/host/guard-file.ts'
import { GuardWatch } from '../../src/host/guard-watch.ts'
import { type Log, silentLog } from '../../src/lib/log.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

test('the end of a guard that is heard of late starts no second one beside its successor', async () => {
  const clock = new VirtualClock()
  const ends: ((how: string) => void)[] = []
  let record: GuardRecord | undefined
  let lives = false
  const watch = new GuardWatch({
    ...{ program: 'p', deadlineMs: 6_000, selfFence: true, log: silentLog, clock },
    files: {
      bootId: 'b',
      read: () => record && { ...record, aliveAt: lives ? clock.elapsed() : record.aliveAt },
      lives: () => lives,
      tenure: () => ({ state: 'lost', why: 'of no matter here' }),
      sign: () => {},
    },
    spawn: async () => ({ pid: ends.length, ended: new Promise((done) => ends.push(done)) }),
    stop: async () => ({ left: 0 }),
  })
  const stopping = new AbortController()
  const running = watch.run(stopping.signal)
  await clock.advance(300)
  expect(ends).toHaveLength(1)
  ;[record, lives] = [{ ...told, aliveAt: clock.elapsed() }, true]
  await clock.advance(12_000)
  lives = false
  await clock.advance(300)
  expect(ends).toHaveLength(2)
  ends[0]?.('SIGKILL')
  // Its successor needs some seconds to say that it is there.
  await clock.advance(5_000)
  expect(ends).toHaveLength(2)
  ends[1]?.('exit code 1')
  await clock.advance(5_000)
  expect(ends.length).toBeGreaterThan(2)
  stopping.abort()
  await running
})

/** An agent that finds the record of a guard of this boot that has ended, and was to stop machines since. */
async function afterDeadGuard(machines: () => number, ms: number): Promise<readonly string[]> {
  const clock = new VirtualClock()
  const warnings: string[] = []
  const note = (message: string) => void warnings.push(message)
  const log: Log = { ...silentLog, warn: note, child: () => log }
  const watch = new GuardWatch({
    ...{ program: 'p', deadlineMs: 6_000, selfFence: true, log, clock },
    files: {
      bootId: 'b',
      read: () => ({ ...told, stopAt: 0 }),
      lives: () => false,
      tenure: () => ({ state: 'lost', why: 'of no matter here' }),
      sign: () => {},
    },
    spawn: () => new Promise(() => {}),
    stop: async () => ({ left: 0, found: machines() }),
  })
  const stopping = new AbortController()
  const running = watch.run(stopping.signal)
  await clock.advance(ms)
  stopping.abort()
  await running
  return warnings.filter((message) => message.startsWith('the guard does not act'))
}

test('where no machine runs there is nothing to warn of: the guard need not act', async () => {
  expect(await afterDeadGuard(() => 0, 5_000)).toEqual([])
})

test('machines that the agent stops for the guard are told of once', async () => {
  let looks = 0
  expect(await afterDeadGuard(() => (looks++ < 1 ? 0 : 2), 5_000)).toHaveLength(1)
  expect(looks).toBeGreaterThan(2)
})

const told: GuardRecord = {
  ...{ version: 1, pid: 1, startTime: 1, bootId: 'b', host: 'a', program: 'p', epoch: 1, held: true },
  ...{ deadlineMs: 6_000, fencing: false, promises: [], aliveAt: 0, why: '' },
}

test('tells of news of the guard at once, and of nothing that only goes on', async () => {
  const clock = new VirtualClock()
  let record: GuardRecord = { ...told, sentAt: 0, standing: 'held' }
  let lives = true
  const watch = new GuardWatch({
    ...{ program: 'p', deadlineMs: 6_000, selfFence: true, log: silentLog, clock },
    files: {
      bootId: 'b',
      read: () => ({ ...record, aliveAt: clock.elapsed() }),
      lives: () => lives,
      tenure: () => tenureOf(record, { bootId: 'b', now: clock.elapsed(), lives: () => lives }),
      sign: () => {},
    },
    spawn: () => new Promise(() => {}),
    stop: async () => ({ left: 0 }),
  })
  let times = 0
  watch.onNews(() => {
    times += 1
  })
  const stopping = new AbortController()
  const running = watch.run(stopping.signal)
  const after = async (next: Partial<GuardRecord>) => {
    const before = times
    record = { ...record, sentAt: clock.elapsed(), ...next }
    await clock.advance(300)
    return times - before
  }
  expect(await after({ agent: 'silent' })).toBe(1)
  expect(await after({})).toBe(0)
  expect(await after({ agent: 'alive' })).toBe(1)
  expect(await after({ epoch: 2 })).toBe(1)
  // One that has ended is mostly replaced before anybody has to know.
  lives = false
  expect(await after({})).toBe(0)
  lives = true
  expect(await after({})).toBe(0)
  lives = false
  expect(await after({})).toBe(0)
  await clock.advance(1_000)
  lives = true
  expect(await after({})).toBe(1)
  expect(await after({ held: false, standing: 'stopping', waits: 'web lives' })).toBe(1)
  expect(await after({ held: false, standing: 'stopping', waits: 'web lives' })).toBe(0)
  expect(await after({ held: false, standing: 'stopping', waits: 'web and db live' })).toBe(1)
  stopping.abort()
  await running
})

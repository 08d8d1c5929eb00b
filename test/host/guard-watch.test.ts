import { expect, test } from 'vitest'
import type { GuardRecord } from '../../src/host/guard-file.ts'
import { GuardWatch } from '../../src/host/guard-watch.ts'
import { silentLog } from '../../src/lib/log.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

test('the end of a guard that is heard of late starts no second one beside its successor', async () => {
  const clock = new VirtualClock()
  const ends: ((how: string) => void)[] = []
  let record: GuardRecord | undefined
  let lives = false
  const watch = new GuardWatch({
    ...{ program: 'p', deadlineMs: 6_000, selfFence: true, log: silentLog, clock },
    files: {
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

const told: GuardRecord = {
  ...{ version: 1, pid: 1, startTime: 1, bootId: 'b', host: 'a', program: 'p', epoch: 1, held: true },
  ...{ deadlineMs: 6_000, fencing: false, promises: [], aliveAt: 0, why: '' },
}

import { expect, test } from 'vitest'
import { GuardFence } from '../../src/host/guard-fence.ts'
import type { QemuProcess } from '../../src/host/ports.ts'
import { silentLog } from '../../src/lib/log.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

const qemu = (pid: number, name: string, state = 'S'): QemuProcess => ({
  ...{
    pid,
    name,
    state,
    startTime: 1,
    bootId: 'b',
    uid: `uid-${pid}`,
    launchId: `l-${pid}`,
    runDir: '/run/x',
  },
})

/** Stops machines that no signal ends. */
async function stopInVain(machines: readonly QemuProcess[]) {
  const clock = new VirtualClock()
  const fence = new GuardFence({
    ...{ clock, log: silentLog },
    processes: {
      runDir: '/run/x',
      scan: async () => ({ processes: machines }),
      inspect: () => 'alive',
      signal: () => 'sent',
      launchRecord: async () => undefined,
    },
  })
  const stopped = fence.stop()
  await clock.advance(2_000)
  return stopped
}

test('what lives after SIGKILL is named, with what is in the way', async () => {
  const { left, why } = await stopInVain([qemu(12, 'default/db'), qemu(7, 'default/web', 'D')])
  expect(left).toBe(2)
  expect(why).toBe(
    'not gone after SIGKILL: default/web (pid 7, in uninterruptible sleep, as of a disk that hangs: no signal ends it), default/db (pid 12)',
  )
})

test('of many it says how many more', async () => {
  const { why } = await stopInVain([1, 2, 3, 4, 5].map((pid) => qemu(pid, `default/m${pid}`)))
  expect(why).toMatch(/m1 \(pid 1\), default\/m2 \(pid 2\), default\/m3 \(pid 3\) and 2 more$/)
})

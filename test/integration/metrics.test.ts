import { expect } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { Prometheus } from '../../src/server/prometheus.ts'
import { test } from './lab.ts'

async function values(meter: Prometheus): Promise<ReadonlyMap<string, number>> {
  const lines = (await meter.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ')
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}

test('a QEMU that is killed is counted once: its end, the restart, the passes and the questions', async ({
  lab,
}) => {
  const meter = new Prometheus({ clock: systemClock })
  const first = lab.agent({ meter })
  await lab.create()
  await lab.untilPhase('Running')
  const before = await values(meter)
  expect(before.get('plasmavmc_vm_restarts_total')).toBe(0)
  expect(before.get('plasmavmc_qmp_command_duration_seconds_count{command="query-status"}')).toBeGreaterThan(
    0,
  )
  process.kill(lab.qemu().pid, 'SIGKILL')
  await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
  const now = await values(meter)
  expect(now.get('plasmavmc_vm_restarts_total')).toBe(1)
  expect(now.get('plasmavmc_vm_exits_total{reason="Killed"}')).toBe(1)
  expect([...now.keys()].filter((name) => name.startsWith('plasmavmc_vm_exits_total'))).toHaveLength(1)
  const passes = (one: ReadonlyMap<string, number>) =>
    one.get('plasmavmc_controller_reconcile_time_seconds_count{controller="vm"}') ?? 0
  expect(passes(now)).toBeGreaterThan(passes(before))
  expect(now.get('plasmavmc_workqueue_depth{name="vm"}')).toBe(0)
  // Another agent adopts what runs: nothing has ended, nothing is counted.
  await first.stop()
  const after = new Prometheus({ clock: systemClock })
  const agent = lab.agent({ meter: after })
  await agent.passes(2)
  const adopted = await values(after)
  expect(adopted.get('plasmavmc_vm_restarts_total')).toBe(0)
  expect([...adopted.keys()].filter((name) => name.startsWith('plasmavmc_vm_exits_total{'))).toEqual([])
})

test('a QEMU that does not answer is counted as a question without an answer', async ({ lab }) => {
  const meter = new Prometheus({ clock: systemClock })
  lab.agent({ meter, statusTimeoutMs: 100 })
  await lab.create()
  await lab.untilPhase('Running')
  await lab.behave({ qmp: 'mute' })
  await lab.untilTrue('a timeout is counted', async () => {
    const errors = (await values(meter)).get(
      'plasmavmc_qmp_command_errors_total{command="query-status",reason="timeout"}',
    )
    return (errors ?? 0) > 0 || undefined
  })
})

import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { Lab, processOf, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

async function make(name: string, spec: Parameters<typeof tiny>[1] = {}) {
  await lab.create(tiny(name, spec))
  if (spec.runStrategy === 'Manual') await lab.verb(name, 'start')
  const vm = await lab.running(name)
  return { name, uid: uidOf(vm), ...processOf(vm) }
}

const kill = (...machines: readonly { readonly pid: number }[]) => {
  for (const { pid } of machines) process.kill(pid, 'SIGKILL')
}

/** Running on another process than before, and on no more than that one. */
async function replaced(before: { name: string; uid: string; launchId: string }) {
  const vm = await lab.sees(before.name, 'runs again', ({ status }) => {
    return status?.phase === 'Running' && status.process?.launchId !== before.launchId
  })
  expect(lab.qemus(before.uid).map(({ pid }) => pid)).toEqual([processOf(vm).pid])
  return vm
}

describe('a QEMU that was killed', () => {
  test('while the server ran is shown as Killed and replaced', async () => {
    const before = await make('killed')
    kill(before)
    const { status } = await replaced(before)
    expect(status?.lastExit).toMatchObject({ reason: 'Killed', signal: 'SIGKILL', launchId: before.launchId })
    expect(status?.restarts).toBe(1)
    expect((await lab.cli('events')).stdout).toMatch(/Warning +Killed +virtualmachine\/killed/)
  })

  test('while no server ran is healed by the run strategy', async () => {
    const strategies = ['Always', 'RerunOnFailure', 'Once', 'Manual'] as const
    const made = await Promise.all(strategies.map((s) => make(s.toLowerCase(), { runStrategy: s })))
    const [always, rerun, once, manual] = made as [typeof first, typeof first, typeof first, typeof first]
    const first = made[0] as Awaited<ReturnType<typeof make>>
    const halting = await make('halting', { terminationGracePeriodSeconds: 3600 })
    await lab.patch('halting', { spec: { runStrategy: 'Halted' } })
    await lab.sees('halting', 'is Stopping', (vm) => vm.status?.phase === 'Stopping')
    await lab.end()
    kill(...made, halting)
    await lab.serve()

    for (const before of [always, rerun]) {
      const { status } = await replaced(before)
      expect(status).toMatchObject({ restarts: 1, lastExit: { launchId: before.launchId } })
      expect(status?.lastExit?.message).toContain('QEMU is gone')
    }
    for (const before of [once, manual]) {
      const vm = await lab.sees(before.name, 'is Failed', ({ status }) => status?.phase === 'Failed')
      expect(vm.status?.process).toBeUndefined()
      expect(lab.qemus(before.uid)).toEqual([])
    }
    const stopped = await lab.sees('halting', 'is Stopped', ({ status }) => status?.phase === 'Stopped')
    expect(stopped.status).toMatchObject({ restarts: 0, lastExit: { launchId: halting.launchId } })
    expect(lab.qemus(halting.uid)).toEqual([])
  })
})

describe('a wiped run directory', () => {
  test('with live QEMUs: Unresponsive, never a second one, and restart works its way out', async () => {
    const [alive, dead] = await Promise.all([make('alive'), make('dead')])
    await lab.end()
    kill(dead)
    rmSync(lab.runDir, { recursive: true })
    await lab.serve()

    const lost = await lab.sees('alive', 'is Unresponsive', ({ status }) => status?.phase === 'Unresponsive')
    expect(processOf(lost)).toMatchObject({ pid: alive.pid, startTime: alive.startTime })
    expect(lost.status?.message).toContain(`${alive.pid}`)
    expect(lost.status?.message).toContain('restart')
    expect(lost.status?.conditions?.[0]).toMatchObject({ type: 'Ready', status: 'Unknown' })
    await replaced(dead)
    expect(lab.qemus(alive.uid).map(({ pid }) => pid)).toEqual([alive.pid])

    await lab.verb('alive', 'restart')
    const again = await replaced(alive)
    expect(again.status?.lastExit?.reason).toBe('Stopped')
    expect(() => startTimeOf(alive.pid)).toThrow()
  })
})

test('a pid that another process has now is never signalled; the machine starts anew', async () => {
  const before = await make('reused')
  const stranger = lab.spawn('sleep', ['1000'])
  const pid = stranger.pid ?? 0
  const startTime = startTimeOf(pid)
  await lab.end()
  kill(before)
  const kv = await openLmdb(join(lab.dataDir, 'store'))
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const vm = await objects.get(VirtualMachine, { name: 'reused', namespace: 'default' })
  // The worst that can be: even the start time fits, and a stop is long overdue.
  const stop = { why: 'Restart', at: '2020-01-01T00:00:00Z', graceSeconds: 0 }
  const status = { ...vm.status, conditions: [], restarts: 0, disks: [], networks: [], stop }
  await objects.updateStatus(VirtualMachine, {
    ...vm,
    status: { ...status, process: { ...processOf(vm), pid, startTime } },
  })
  await kv.close()
  await lab.serve()
  await replaced(before)
  expect(startTimeOf(pid)).toBe(startTime)
  expect(stranger.signalCode).toBeNull()
})

test('a reboot of the host is told from a crash: started at once, counted, without back-off', async () => {
  const bootId = join(lab.dir, 'boot_id')
  const boot = (id: string) => writeFileSync(bootId, `${id}\n`)
  const mount = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
  const under = ['unshare', '-m', 'sh', '-c', mount, bootId]
  boot('11111111-1111-4111-8111-111111111111')
  await lab.restart('SIGTERM', { under })
  const before = await make('rebooted')
  expect(before.bootId).toBe('11111111-1111-4111-8111-111111111111')
  await lab.end()
  kill(...lab.qemus())
  rmSync(lab.runDir, { recursive: true })
  boot('22222222-2222-4222-8222-222222222222')
  await lab.serve({ under })
  const { status } = await replaced(before)
  expect(status).toMatchObject({
    restarts: 1,
    lastExit: { reason: 'HostReboot', launchId: before.launchId },
    process: { bootId: '22222222-2222-4222-8222-222222222222' },
  })
  expect(status?.backoff).toBeUndefined()
})

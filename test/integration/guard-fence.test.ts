import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { GuardFence } from '../../src/host/guard-fence.ts'
import { vmPaths } from '../../src/host/paths.ts'
import type { ProcessIdentity } from '../../src/host/ports.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { vmSpec } from '../../src/resources/vm.ts'
import { scriptDir } from '../fakes/qemu/script.ts'

let root: string
let launched: ProcessIdentity[]
const options = { hostName: 'a', accelerator: 'tcg', clock: systemClock, log: silentLog } as const
const cgroups = { enter: async () => 'entered' as const, remove: async () => {} }

function processesIn(runDir: string): HostProcesses {
  const qemuBinary = resolve('test/fakes/qemu-system-fake')
  return new HostProcesses({ ...options, runDir, qemuBinary, cgroups })
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'pvf-'))
  launched = []
  for (const name of ['r', 'other']) mkdirSync(join(root, name))
  mkdirSync(scriptDir(join(root, 'r')))
})
afterEach(() => {
  const processes = processesIn(join(root, 'r'))
  for (const one of launched) if (processes.inspect(one) !== 'gone') process.kill(one.pid, 'SIGKILL')
  rmSync(root, { recursive: true, force: true, maxRetries: 5 })
})

async function launch(onHostLoss: 'Failover' | 'Manual', runDir = join(root, 'r')) {
  const uid = randomUUID()
  const metadata = { name: `vm-${uid.slice(0, 8)}`, namespace: 'default', uid }
  const spec = vmSpec.parse({ memory: '64Mi', recovery: { onHostLoss } })
  const vm = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata, spec }
  const machine = await processesIn(runDir).launch({ vm, launchId: randomUUID(), epoch: 1, disks: new Map() })
  launched.push(machine)
  return { ...machine, record: vmPaths(runDir, uid).launch }
}

const fence = () => GuardFence.of({ runDir: join(root, 'r'), host: 'a', clock: systemClock, log: silentLog })
const lives = (machine: ProcessIdentity) => processesIn(join(root, 'r')).inspect(machine) !== 'gone'

/** Until nothing is left, as the guard does. */
async function stopAll(): Promise<void> {
  await expect.poll(async () => (await fence().stop()).left, { timeout: 60_000 }).toBe(0)
}

describe('fencing', () => {
  test('stops what fails over and leaves the rest, also of other run directories', async () => {
    const failover = [await launch('Failover'), await launch('Failover')]
    const others = [await launch('Manual'), await launch('Failover', join(root, 'other'))]
    expect(await fence().running()).toBe(2)
    await stopAll()
    expect(failover.map(lives)).toEqual([false, false])
    expect(others.map(lives)).toEqual([true, true])
    expect(await fence().running()).toBe(0)
  })

  test('stops one that is stopped itself', async () => {
    const machine = await launch('Failover')
    process.kill(machine.pid, 'SIGSTOP')
    expect(await fence().stop()).toMatchObject({ found: 1 })
    await stopAll()
    expect(lives(machine)).toBe(false)
  })

  test.each<[string, (path: string) => void]>([
    ['is missing', (path) => rmSync(path)],
    ['is broken', (path) => writeFileSync(path, '{')],
    [
      'is that of another launch',
      (path) => {
        const record = JSON.parse(readFileSync(path, 'utf8'))
        writeFileSync(path, JSON.stringify({ ...record, launchId: randomUUID() }))
      },
    ],
  ])('stops a machine whose launch record %s', async (_, spoil) => {
    const machine = await launch('Manual')
    spoil(machine.record)
    await stopAll()
    expect(lives(machine)).toBe(false)
  })
})

test('where /proc hides something nothing is proven', async () => {
  const runDir = join(root, 'r')
  const processes = processesIn(runDir)
  const blind = new GuardFence({
    ...{ clock: systemClock, log: silentLog },
    processes: Object.assign(
      {
        runDir,
        scan: async () => ({ processes: [], incomplete: 'processes of other users are hidden' }),
      },
      {
        inspect: processes.inspect.bind(processes),
        signal: processes.signal.bind(processes),
        launchRecord: processes.launchRecord.bind(processes),
      },
    ),
  })
  expect(await blind.stop()).toEqual({ left: 1, why: 'processes of other users are hidden' })
  expect(await blind.running()).toBe(1)
})

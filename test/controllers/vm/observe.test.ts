import { expect, test } from 'vitest'
import { Inventory } from '../../../src/controllers/vm/inventory.ts'
import { Memories } from '../../../src/controllers/vm/memory.ts'
import { observe } from '../../../src/controllers/vm/observe.ts'
import type { Machines, Processes, QemuProcess } from '../../../src/host/ports.ts'
import { PlainDisks } from '../../fakes/plain-disks.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { identity, machine, process, uid } from './fixture.ts'

const never = () => Promise.reject(new Error('not asked for here'))
const none = () => () => {}

/** A host on which these run. */
function hostOf(...qemus: readonly QemuProcess[]) {
  const clock = new VirtualClock()
  const processes: Processes = {
    ...{
      bootId: identity.bootId,
      runDir: '/run/ours',
      inspect: () => 'gone',
      signal: () => 'gone',
      launch: never,
    },
    ...{ noteSpec: never, launchRecord: async () => undefined, cleanup: never, log: never, onExit: none },
    scan: async () => ({ processes: qemus }),
  }
  const machines: Machines = {
    ...{ status: never, execute: never, onChange: none, forget: () => {}, close: never },
  }
  return {
    ...{ hostName: 'host-a', hostLabels: () => ({}), processes, machines, disks: new PlainDisks(), clock },
    ...{ inventory: new Inventory(processes, clock), memories: new Memories() },
    ...{ specHash: () => 'same', diskClaim: () => undefined, lateWrites: () => undefined },
    ...{ tenure: () => ({ state: 'single' as const }), refusal: () => undefined, localDisks: () => [] },
  }
}

test.each([
  ['the launch that the status tells of', process.launchId, true],
  ['an earlier launch', 'l-0', false],
])('the exit of %s', async (_what, launchId, counts) => {
  const host = hostOf()
  host.memories.of(uid).exit = { uid, launchId, identity, signal: 'SIGSEGV', output: '' }
  const seen = await observe(machine({}, { process }), host)
  expect(seen.process).toEqual({ state: 'absent' })
  expect(seen.exit?.signal).toBe(counts ? 'SIGSEGV' : undefined)
})

const qemu: QemuProcess = {
  ...identity,
  uid,
  name: 'default/web',
  state: 'S',
  launchId: 'l-1',
  runDir: '/run/ours',
}

test.each([
  ['without our mark', { launchId: undefined, runDir: undefined }, /not started by PlasmaVMC/],
  ['of another run directory', { runDir: '/run/theirs' }, /run directory \/run\/theirs/],
])("a QEMU %s that has a machine's uid is not adopted, and not taken for absence", async (_what, of, why) => {
  const { launchId, runDir, ...rest } = { ...qemu, ...of }
  const stranger = { ...rest, ...(launchId && { launchId }), ...(runDir && { runDir }) }
  const seen = await observe(machine({}, { process }), hostOf(stranger))
  expect(seen.process).toEqual({ state: 'unknown', why: expect.stringMatching(why) })
})

test('a QEMU of ours is adopted', async () => {
  const host = hostOf(qemu)
  host.machines.status = async () => ({ state: 'answered', status: 'running', running: true })
  expect((await observe(machine({}, { process }), host)).process).toMatchObject({ state: 'alive', identity })
})

import { expect, test } from 'vitest'
import { Inventory } from '../../../src/controllers/vm/inventory.ts'
import { Memories } from '../../../src/controllers/vm/memory.ts'
import { observe } from '../../../src/controllers/vm/observe.ts'
import type { Machines, Processes } from '../../../src/host/ports.ts'
import { PlainDisks } from '../../fakes/plain-disks.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { identity, machine, process, uid } from './fixture.ts'

const never = () => Promise.reject(new Error('not asked for here'))
const none = () => () => {}

/** A host on which nothing runs. */
function emptyHost() {
  const clock = new VirtualClock()
  const processes: Processes = {
    ...{ bootId: identity.bootId, inspect: () => 'gone', signal: () => 'gone', launch: never },
    ...{ noteSpec: never, launchRecord: async () => undefined, cleanup: never, log: never, onExit: none },
    scan: async () => ({ processes: [] }),
  }
  const machines: Machines = {
    ...{ status: never, execute: never, onChange: none, forget: () => {}, close: never },
  }
  return {
    ...{ hostName: 'host-a', hostLabels: () => ({}), processes, machines, disks: new PlainDisks(), clock },
    ...{ inventory: new Inventory(processes, clock), memories: new Memories() },
    ...{ specHash: () => 'same', diskClaim: () => undefined },
  }
}

test.each([
  ['the launch that the status tells of', process.launchId, true],
  ['an earlier launch', 'l-0', false],
])('the exit of %s', async (_what, launchId, counts) => {
  const host = emptyHost()
  host.memories.of(uid).exit = { uid, launchId, identity, signal: 'SIGSEGV', output: '' }
  const seen = await observe(machine({}, { process }), host)
  expect(seen.process).toEqual({ state: 'absent' })
  expect(seen.exit?.signal).toBe(counts ? 'SIGSEGV' : undefined)
})

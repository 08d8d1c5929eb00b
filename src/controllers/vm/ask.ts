import type { Machines } from '../../host/ports.ts'
import type { RunState } from '../../qmp/types.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { askFacts, diskOf, type MachineFacts } from './machine-facts.ts'
import type { VmMemory } from './memory.ts'
import { needsFacts, runningSpec } from './plan-live.ts'
import type { FailedDisk, ProcessFact } from './types.ts'

type Asked = Pick<Extract<ProcessFact, { state: 'alive' }>, 'facts' | 'failedDisks'>

/** States in which a guest can be changed. */
const changeable: ReadonlySet<RunState> = new Set(['running', 'paused', 'io-error', 'watchdog', 'suspended'])

/** Asks a QEMU that has answered for what its state or its spec makes worth knowing. Never rejects. */
export async function askMore(
  vm: VirtualMachine,
  state: RunState,
  memory: VmMemory,
  { machines }: { readonly machines: Machines },
): Promise<Asked> {
  const uid = vm.metadata.uid ?? ''
  const failedDisks = state === 'io-error' ? await askFailedDisks(uid, machines) : undefined
  const facts = changeable.has(state) && mayChange(vm, memory) ? await askParts(uid, machines) : undefined
  return { ...(failedDisks && { failedDisks }), ...(facts && { facts }) }
}

/** Whether there is something to bring about, or to find gone, in a machine that is to go on running. */
function mayChange(vm: VirtualMachine, { process }: VmMemory): boolean {
  if (!process || vm.metadata.deletionTimestamp !== undefined || vm.status?.stop) return false
  const running = runningSpec(process)
  return running !== undefined && (process.record?.pending !== undefined || needsFacts(running, vm.spec))
}

async function askParts(uid: string, machines: Machines): Promise<MachineFacts | undefined> {
  try {
    return await askFacts(uid, machines)
  } catch {
    // It is asked again: without facts nothing is changed.
    return undefined
  }
}

/** The disks for which QEMU holds a guest; undefined where it does not say. */
async function askFailedDisks(uid: string, machines: Machines): Promise<readonly FailedDisk[] | undefined> {
  try {
    const blocks = await machines.execute(uid, 'query-block')
    return blocks.flatMap(({ qdev, 'io-status': status }) => {
      const name = diskOf(qdev)
      return name === undefined || status === undefined || status === 'ok'
        ? []
        : [{ name, noSpace: status === 'nospace' }]
    })
  } catch {
    // The state itself is known; this only names the disk.
    return undefined
  }
}

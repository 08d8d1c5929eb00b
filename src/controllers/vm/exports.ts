import { isDeepStrictEqual } from 'node:util'
import type { DiskState } from '../../host/ports.ts'
import { nbdUrl, writableExports } from '../../resources/nbd.ts'
import type { VirtualMachine, VmSpec } from '../../resources/vm.ts'
import type { Draft } from './draft.ts'
import { runningSpec } from './plan-live.ts'
import type { ProcessFact } from './types.ts'

/**
 * What was seen of the disks, with exports that a living QEMU has open as they are to it: their server is not asked while
 * one does. Where it is not known what a QEMU has, all that is declared counts.
 */
export function withOpenExports(
  disks: readonly DiskState[],
  { spec }: VirtualMachine,
  process: ProcessFact,
): readonly DiskState[] {
  if (process.state === 'absent') return disks
  const running = process.state === 'alive' ? runningSpec(process) : undefined
  return disks.map((disk) => {
    const nbd = spec.disks.find(({ name }) => name === disk.name)?.nbd
    if (!nbd) return disk
    const has = running?.disks.find(({ name }) => name === disk.name)?.nbd
    if (!running || isDeepStrictEqual(has, nbd)) return { name: disk.name, path: nbdUrl(nbd), state: 'ready' }
    return { name: disk.name, state: 'absent', message: 'looked for before the next start' }
  })
}

const keysOf = (spec: VmSpec) => writableExports(spec.disks).map(({ key }) => key)

/** Whether it is declared to write to exports, or is recorded to. */
export const mayWriteExports = ({ spec, status }: VirtualMachine) =>
  keysOf(spec).length > 0 || (status?.exports ?? []).length > 0

/** Records the exports that a QEMU writes to; `specs` are all that it may have been started or changed with. */
export function claimExports({ status }: Draft, ...specs: readonly VmSpec[]): void {
  const keys = [...new Set(specs.flatMap(keysOf))]
  if (keys.length > 0) status.exports = keys
  else delete status.exports
}

/** Keeps that record true of a QEMU that lives: one without its launch.json may have what was recorded, and what is declared. */
export function keepExports(draft: Draft, process: Extract<ProcessFact, { state: 'alive' }>): void {
  const running = runningSpec(process)
  if (running) return claimExports(draft, running)
  const keys = new Set([...(draft.vm.status?.exports ?? []), ...keysOf(draft.vm.spec)])
  if (keys.size > 0) draft.status.exports = [...keys]
}

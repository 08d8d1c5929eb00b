import { posix } from 'node:path'
import type { StoragePool } from './kinds.ts'
import { isLoopback } from './nbd.ts'
import type { VirtualMachine, VmDisk } from './vm.ts'

/** A disk that only the host it is on can reach, with the spec's field that makes it so. */
export interface LocalDisk {
  readonly name: string
  readonly field: string
}

function isInside(path: string, folder: string): boolean {
  const inside = posix.relative(folder, path)
  return inside !== '' && inside !== '..' && !inside.startsWith('../')
}

/** Whether every host sees the same file there: an absolute path in the directory of a shared pool. */
function isShared(path: string, pools: readonly StoragePool[]): boolean {
  if (!path.startsWith('/')) return false
  return pools.some(({ spec }) => spec.shared && isInside(path, spec.path))
}

/** The member that ties a disk to one host; undefined where every host can reach all of it. */
function tieOf(disk: VmDisk, pools: readonly StoragePool[]): string | undefined {
  if (disk.nbd) return isLoopback(disk.nbd.host) ? 'nbd.host' : undefined
  if (disk.path !== undefined) return isShared(disk.path, pools) ? undefined : 'path'
  const pool = pools.find(({ metadata }) => metadata.name === disk.pool)
  if (!pool?.spec.shared) return 'pool'
  // A raw disk is a copy of its image; a qcow2 one goes on reading it, and a download lies in the folder of one host.
  if (!disk.image || disk.format !== 'qcow2') return undefined
  return isShared(disk.image.source, pools) ? undefined : 'image'
}

/**
 * Whether there may be something on the disk: a path in status, Ready, or a failure of a machine that has run. What is
 * still to be made, or could not be made for a machine that never ran, ties nothing; an export is not made by us.
 */
function mayHold({ status }: VirtualMachine, { name, nbd }: VmDisk): boolean {
  const disk = status?.disks.find((one) => one.name === name)
  if (!disk) return false
  if (disk.path !== undefined || disk.state === 'Ready') return true
  const hasRun = (status?.lastExit ?? status?.process ?? status?.launch) !== undefined
  return hasRun && (disk.state === 'Failed' || nbd !== undefined)
}

/**
 * The disks of a machine that exist already and can be reached only from the host they are on, `status.disksHost`: those
 * in a pool that is not shared (also one that is not declared, as `default` may be), given by a path outside shared
 * pools, standing as qcow2 on an image outside them, or served by NBD from the host itself. Seed disks and UEFI variables do not count: they are made anew.
 */
export function localDisks(vm: VirtualMachine, pools: readonly StoragePool[]): readonly LocalDisk[] {
  return vm.spec.disks.flatMap((disk, index) => {
    const tie = tieOf(disk, pools)
    if (tie === undefined || !mayHold(vm, disk)) return []
    return [{ name: disk.name, field: `spec.disks[${index}].${tie}` }]
  })
}

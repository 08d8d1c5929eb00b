import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HostDisks, type HostDisksOptions } from '../../src/host/disks.ts'
import type { DiskState, Disks } from '../../src/host/ports.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { withDeadline } from '../../src/lib/deadline.ts'
import { silentLog } from '../../src/lib/log.ts'
import { type VirtualMachine, vmSpec } from '../../src/resources/vm.ts'

export const uid = '11111111-2222-4333-8444-555555555555'

/** Whether this account may make mounts and network devices: root in most places, not in every container. */
export const privileged = spawnSync('unshare', ['--mount', '--net', 'true']).status === 0

/** A machine with the defaults of its schema. */
export function machine(spec: Record<string, unknown>, own = uid): VirtualMachine {
  return {
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: 'VirtualMachine',
    metadata: { name: 'web', namespace: 'default', uid: own },
    spec: vmSpec.parse(spec),
  }
}

/** Disks in a fresh folder. */
export function workshop(options: Partial<HostDisksOptions> = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'disks-'))
  const imageDir = join(dir, 'images')
  mkdirSync(imageDir)
  const dataDir = join(dir, 'data')
  const all = { imageDir, dataDir, pools: () => [], clock: systemClock, log: silentLog, ...options }
  const disks = new HostDisks(all)
  const end = async () => {
    await disks.close()
    rmSync(dir, { recursive: true, force: true })
  }
  return { dir, imageDir, dataDir, own: join(dataDir, 'disks', uid), disks, options: all, end }
}

/** Waits until `holds` is true of what is seen, looking again at each change. */
export function until(
  disks: Disks,
  vm: VirtualMachine,
  holds: (seen: readonly DiskState[]) => boolean,
): Promise<readonly DiskState[]> {
  return withDeadline(
    20_000,
    'disks',
    () =>
      new Promise((resolve, reject) => {
        const stop = disks.onChange(() => void again())
        const again = async () => {
          const seen = await disks.observe(vm)
          if (!holds(seen)) return
          stop()
          resolve(seen)
        }
        again().catch(reject)
      }),
  )
}

/** Prepares and waits for the end. */
export function prepared(disks: Disks, vm: VirtualMachine): Promise<readonly DiskState[]> {
  disks.prepare(vm)
  return until(disks, vm, (seen) => seen.every((disk) => disk.state === 'ready' || disk.state === 'failed'))
}

import { readFile, stat } from 'node:fs/promises'
import { errnoOf, messageOf } from '../lib/errors.ts'
import { formatQuantity } from '../resources/quantity.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { seedImage } from './cloud-init.ts'
import { type DiskItem, wantedBytes } from './disk-layout.ts'
import { requireReadable } from './images.ts'
import type { DiskState } from './ports.ts'
import { virtualSize } from './qemu-img.ts'

type Made = Extract<DiskItem, { kind: 'disk' }>

async function exists(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false
    throw error
  }
}

async function lookAtDisk({ name, path, field, disk }: Made): Promise<DiskState> {
  if (!(await exists(path))) return { name, state: 'absent' }
  const [has, wants] = [await virtualSize(path, disk.format), wantedBytes(disk)]
  if (wants === undefined || has === wants) return { name, path, state: 'ready' }
  const sizes = `${formatQuantity(has)} to ${formatQuantity(wants)}`
  if (has < wants)
    return { name, path, state: 'absent', message: `grows from ${sizes} before the next start` }
  const message = `${field}.size: the disk would shrink from ${sizes} and lose data; set it to ${formatQuantity(has)}`
  return { name, path, state: 'failed', message }
}

async function lookAtSeed(name: string, path: string, vm: VirtualMachine): Promise<DiskState> {
  const wanted = seedImage(vm)
  const found = (await exists(path)) ? await stat(path) : undefined
  // Another length is another content: then nothing needs to be read.
  const same = found?.size === wanted.length && wanted.equals(await readFile(path))
  return same ? { name, path, state: 'ready' } : { name, state: 'absent' }
}

async function lookAt(item: DiskItem, vm: VirtualMachine): Promise<DiskState> {
  const { name } = item
  switch (item.kind) {
    case 'impossible':
      return { name, state: 'failed', message: item.message }
    case 'given':
      await requireReadable(item.path, item.field)
      return { name, path: item.path, state: 'ready' }
    case 'disk':
      return lookAtDisk(item)
    case 'seed':
      return lookAtSeed(name, item.path, vm)
    case 'variables':
      return (await exists(item.path)) ? { name, path: item.path, state: 'ready' } : { name, state: 'absent' }
  }
}

/** How one file of a machine is right now. Starts no process, changes nothing, never rejects. */
export async function look(item: DiskItem, vm: VirtualMachine): Promise<DiskState> {
  try {
    return await lookAt(item, vm)
  } catch (error) {
    return { name: item.name, state: 'failed', message: messageOf(error) }
  }
}

import { readdir, readFile, realpath } from 'node:fs/promises'
import { basename, join } from 'node:path'

/** Text of a file; '' where there is none. */
function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

function namesIn(path: string): Promise<string[]> {
  return readdir(path).catch(() => [])
}

/** A device number as the kernel writes it: `major:minor` (makedev(3)). */
export function deviceNumber(rdev: number): string {
  const device = BigInt(rdev)
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn)
  return `${major}:${minor}`
}

/**
 * Where devices are mounted, by number and by name, from /proc/self/mountinfo (proc(5)); some file systems (btrfs) show
 * a number of their own.
 */
export function mountedDevices(mountinfo: string): ReadonlyMap<string, string> {
  const mounted = new Map<string, string>()
  for (const line of mountinfo.split('\n')) {
    const [, , device, , target] = line.split(' ')
    const source = line.split(' - ')[1]?.split(' ')[1]
    if (target === undefined) continue
    for (const key of [device, source]) if (key !== undefined && !mounted.has(key)) mounted.set(key, target)
  }
  return mounted
}

/** Folders of /sys of a block device and its partitions. */
async function partsOf(number: string): Promise<readonly string[]> {
  const folder = await realpath(join('/sys/dev/block', number)).catch(() => undefined)
  if (folder === undefined) return []
  const parts: string[] = []
  for (const name of await namesIn(folder))
    if ((await textOf(join(folder, name, 'partition'))) !== '') parts.push(join(folder, name))
  return [folder, ...parts]
}

/**
 * Why a machine must not write to a block device: it, or a partition of it, is mounted, swapped to, or part of another
 * device (LVM, RAID, dm-crypt). Undefined where nothing speaks against it.
 */
export async function blockDeviceUse(path: string, rdev: number): Promise<string | undefined> {
  const mounted = mountedDevices(await textOf('/proc/self/mountinfo'))
  const swaps = await textOf('/proc/swaps')
  const own = deviceNumber(rdev)
  const names = new Set([own, path])
  for (const part of await partsOf(own)) {
    const [holder] = await namesIn(join(part, 'holders'))
    if (holder !== undefined) return `it is part of ${holder}`
    names.add((await textOf(join(part, 'dev'))).trim()).add(`/dev/${basename(part)}`)
  }
  for (const name of names) {
    const target = mounted.get(name)
    if (target !== undefined) return `it is mounted on ${target}`
    if (swaps.includes(`${name} `)) return `${name} is swap space`
  }
  return undefined
}

/** Why a machine must not write to a file: a loop device or the kernel's swap stands on it. */
export async function fileUse(path: string): Promise<string | undefined> {
  if ((await textOf('/proc/swaps')).includes(`${path} `)) return 'it is swap space'
  for (const name of await namesIn('/sys/block')) {
    if (!name.startsWith('loop')) continue
    const backing = (await textOf(join('/sys/block', name, 'loop/backing_file'))).trimEnd()
    if (backing === path) return `the loop device /dev/${name} stands on it`
  }
  return undefined
}

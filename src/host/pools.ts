import { access, constants, readdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { whyFile } from '../lib/folders.ts'
import { approximateQuantity } from '../resources/quantity.ts'
import { virtualSize } from './qemu-img.ts'

/** A directory for disks on this host; `capacity` is what its disks may claim in all, in bytes. */
export interface Pool {
  readonly name: string
  readonly path: string
  readonly capacity?: number
  /** Every host sees the same files there. */
  readonly shared?: boolean
}

/** The pool that exists without being declared: `<data-dir>/disks`. */
export function defaultPool(dataDir: string): Pool {
  return { name: 'default', path: join(dataDir, 'disks') }
}

/** The pool of a name; a declared `default` wins over the one in the data directory. */
export function poolNamed(pools: readonly Pool[], name: string, dataDir: string): Pool | undefined {
  return pools.find((pool) => pool.name === name) ?? (name === 'default' ? defaultPool(dataDir) : undefined)
}

/** Bytes an unprivileged writer may still use on the file system of a directory. */
export async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir)
  return bavail * bsize
}

/** What is free in a pool's directory, rounded so that it seldom changes, or why it can't be used. Never rejects. */
export async function lookAtPool(
  path: string,
): Promise<{ readonly available: string } | { readonly problem: string }> {
  try {
    await access(path, constants.W_OK | constants.X_OK)
    return { available: approximateQuantity(await freeBytes(path)) }
  } catch (error) {
    // Made when the first disk is.
    if (errnoOf(error) === 'ENOENT') return { problem: `${path} is not there yet` }
    return { problem: `${path} can't be used: ${whyFile(error)}` }
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return []
    throw error
  }
}

/** Virtual bytes of all disks kept in a pool. A disk that disappears meanwhile counts nothing. */
async function claimedBytes(pool: Pool): Promise<number> {
  let total = 0
  for (const uid of await namesIn(pool.path))
    for (const file of await namesIn(join(pool.path, uid))) {
      const format = /\.(qcow2|raw)$/.exec(file)?.[1] as 'qcow2' | 'raw' | undefined
      if (format) total += await virtualSize(join(pool.path, uid, file), format).catch(() => 0)
    }
  return total
}

async function requireSpace(pool: Pool, bytes: number, promised: number, field: string): Promise<void> {
  const refuse = (limit: string) => {
    throw new PlasmaError('PoolFull', `${field}: ${approximateQuantity(bytes)} is more than ${limit}`, {
      hint: 'ask for less, free space, or use another pool',
    })
  }
  const free = await freeBytes(pool.path)
  if (bytes > free) refuse(`the ${approximateQuantity(free)} free in pool ${pool.name} (${pool.path})`)
  if (pool.capacity === undefined) return
  const left = Math.max(0, pool.capacity - promised - (await claimedBytes(pool)))
  if (bytes > left)
    refuse(
      `the ${approximateQuantity(left)} left of pool ${pool.name}'s capacity ${approximateQuantity(pool.capacity)}`,
    )
}

/** Space of pools that disks under way were promised: what they will be is not on the file system yet. */
export class PoolSpace {
  readonly #promised = new Map<string, number>()
  readonly #asking = new Map<string, Promise<unknown>>()

  /**
   * Promises `bytes` more of a pool, one asker at a time. One disk must fit the free space; several thin ones together
   * may promise more, up to the capacity.
   * @returns a function to call once the disk is there, or never will be
   * @throws PlasmaError `PoolFull` naming the field
   */
  promise(pool: Pool, bytes: number, field: string): Promise<() => void> {
    const before = this.#asking.get(pool.path) ?? Promise.resolve()
    const answer = before.then(async () => {
      await requireSpace(pool, bytes, this.#promised.get(pool.path) ?? 0, field)
      this.#add(pool, bytes)
      return () => this.#add(pool, -bytes)
    })
    const settled = answer.catch(() => {})
    this.#asking.set(pool.path, settled)
    void settled.then(() => {
      if (this.#asking.get(pool.path) === settled) this.#asking.delete(pool.path)
    })
    return answer
  }

  #add(pool: Pool, bytes: number): void {
    const promised = (this.#promised.get(pool.path) ?? 0) + bytes
    if (promised === 0) this.#promised.delete(pool.path)
    else this.#promised.set(pool.path, promised)
  }
}

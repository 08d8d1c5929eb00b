import { rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Clock } from '../lib/clock.ts'
import { adviceOf, errnoOf, PlasmaError } from '../lib/errors.ts'
import { whyFile } from '../lib/folders.ts'
import type { Log } from '../lib/log.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { type BaseMark, baseOf, markOf } from './disk-base.ts'
import {
  type DiskItem,
  layout,
  offLimits,
  ownDirs,
  type Places,
  seedFile,
  uidOf,
  wantedBytes,
} from './disk-layout.ts'
import { type LookContext, look } from './disk-look.ts'
import { isMakable, make } from './disk-make.ts'
import { removeParts } from './durable-files.ts'
import { Images } from './images.ts'
import { MadeDisks } from './made-disks.ts'
import { NbdExports } from './nbd-exports.ts'
import { defaultPool, type Pool, PoolSpace } from './pools.ts'
import type { DiskState, Disks } from './ports.ts'
import { checkUid } from './qemu-args.ts'
import { virtualSize } from './qemu-img.ts'
import { Slots } from './slots.ts'

export interface HostDisksOptions {
  /** Where relative image, kernel and initrd paths lie. */
  readonly imageDir: string
  readonly dataDir: string
  /** The declared pools; asked anew each time. */
  readonly pools: () => readonly Pool[]
  readonly clock: Clock
  readonly log: Log
  /** How long an image server may stay silent, in milliseconds; 60 000 unless given. */
  readonly stallMs?: number
}

/** Copies load the disk; what is done in a moment must not wait behind them. */
const mostCopies = 2
const mostQuick = 4

interface Job {
  readonly controller: AbortController
  /** Percent by disk name. */
  readonly percent: Map<string, number>
  done: Promise<void>
}

/** Removes a machine's folder in a pool. @throws PlasmaError `DisksNotRemoved` while something may be there */
async function removeDir(dir: string): Promise<void> {
  try {
    await rm(dir, { recursive: true, force: true })
  } catch (error) {
    // The pool's own path leads through a file: nothing was ever made in it.
    if (errnoOf(error) === 'ENOTDIR') return
    throw new PlasmaError('DisksNotRemoved', `${dir} can't be removed: ${whyFile(error)}`, {
      hint: 'make it writable for the server; it is tried again',
      cause: error,
    })
  }
}

/** Removes what is made anew wherever the machine is, and the folder where nothing else is in it. */
async function removeSeed(dir: string): Promise<void> {
  await rm(join(dir, seedFile), { force: true })
  await rmdir(dir).catch((error: unknown) => {
    if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error
  })
}

/** The image that a disk stands on, as it is now. */
async function markOfBase(item: Extract<DiskItem, { kind: 'disk' }>): Promise<BaseMark | undefined> {
  const base = await baseOf(item)
  return base === undefined ? undefined : markOf(base)
}

/** Disks of this host's machines, made by qemu-img and by us. */
export class HostDisks implements Disks {
  readonly #options: HostDisksOptions
  readonly #images: Images
  readonly #jobs = new Map<string, Job>()
  /** What failed in the last preparation: message by disk name, by uid. */
  readonly #failures = new Map<string, ReadonlyMap<string, string>>()
  readonly #listeners = new Set<(uid: string) => void>()
  readonly #slots = { quick: new Slots(mostQuick), copies: new Slots(mostCopies) }
  readonly #space = new PoolSpace()
  readonly #made: MadeDisks
  readonly #exports: NbdExports
  #closed = false

  constructor(options: HostDisksOptions) {
    this.#options = options
    const { dataDir, clock, stallMs } = options
    const cacheDir = join(dataDir, 'images', 'cache')
    const limits = () => offLimits(this.#places())
    const stall = stallMs === undefined ? {} : { stallMs }
    this.#images = new Images({ cacheDir, limits, clock, copies: this.#slots.copies, ...stall })
    this.#made = new MadeDisks(dataDir)
    this.#exports = new NbdExports(clock)
  }

  async observe(vm: VirtualMachine): Promise<readonly DiskState[]> {
    const uid = uidOf(vm)
    const places = this.#places()
    const context = this.#lookContext(vm, places)
    const seen = await Promise.all(layout(vm, places).map((item) => look(item, context)))
    const job = this.#jobs.get(uid)
    const failures = this.#failures.get(uid)
    return seen.map((disk) => {
      if (disk.state !== 'absent' && !disk.stale) return disk
      const progressPercent = job?.percent.get(disk.name)
      if (job)
        return { ...disk, state: 'preparing', ...(progressPercent === undefined ? {} : { progressPercent }) }
      const message = failures?.get(disk.name)
      return message === undefined ? disk : { ...disk, state: 'failed', message }
    })
  }

  prepare(vm: VirtualMachine, only?: readonly string[]): void {
    const uid = uidOf(vm)
    if (this.#closed || this.#jobs.has(uid)) return
    this.#failures.delete(uid)
    const job: Job = { controller: new AbortController(), percent: new Map(), done: Promise.resolve() }
    this.#jobs.set(uid, job)
    job.done = this.#run(uid, vm, job, only)
  }

  async checkGrowth(vm: VirtualMachine, name: string): Promise<void> {
    const item = layout(vm, this.#places()).find((candidate) => candidate.name === name)
    const wants = item?.kind === 'disk' ? wantedBytes(item.disk) : undefined
    if (item?.kind !== 'disk' || wants === undefined) return
    const more = wants - (await virtualSize(item.path, item.disk.format))
    if (more <= 0) return
    const release = await this.#space.promise(item.pool, more, `${item.field}.size`)
    // QEMU grows it at once, and then it counts as it is.
    release()
  }

  async remove(vm: VirtualMachine): Promise<void> {
    const uid = uidOf(vm)
    await this.#cancel(uid, 'the machine is being deleted')
    // Also where a pool is not declared any more, or not known yet.
    const dirs = new Set([...ownDirs(vm, this.#places()), ...(await this.#made.foldersOf(uid))])
    // A link is removed itself, never what it leads to.
    for (const dir of dirs) await removeDir(dir)
    await this.#made.forget(uid)
    this.#exports.forget(uid)
  }

  async letGo(uid: string): Promise<void> {
    await this.#cancel(uid, 'the machine is another host’s from now on')
    this.#exports.forget(uid)
    const shared = this.#places().pools.filter((pool) => pool.shared)
    await this.#made.forgetThose(uid, (path) =>
      shared.some((pool) => path.startsWith(`${pool.path}/${uid}/`)),
    )
    await removeSeed(join(defaultPool(this.#options.dataDir).path, checkUid(uid)))
  }

  async #cancel(uid: string, why: string): Promise<void> {
    const job = this.#jobs.get(uid)
    job?.controller.abort(new PlasmaError('Cancelled', why))
    await job?.done
    this.#failures.delete(uid)
  }

  onChange(listener: (uid: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Cancels what runs and waits for it. What was half made is removed. */
  async close(): Promise<void> {
    this.#closed = true
    const jobs = [...this.#jobs.values()]
    for (const job of jobs) job.controller.abort(new PlasmaError('Cancelled', 'PlasmaVMC is stopping'))
    await Promise.all(jobs.map((job) => job.done))
    this.#listeners.clear()
  }

  #places(): Places {
    const { imageDir, dataDir, pools } = this.#options
    return { imageDir, dataDir, pools: pools() }
  }

  #lookContext(vm: VirtualMachine, places: Places): LookContext {
    const uid = uidOf(vm)
    const [made, bases] = [() => this.#made.of(uid), () => this.#made.basesOf(uid)]
    return { vm, limits: offLimits(places), made, bases, exports: this.#exports.of(uid) }
  }

  /** Never rejects: what fails is kept for `observe`. */
  async #run(uid: string, vm: VirtualMachine, job: Job, only?: readonly string[]): Promise<void> {
    const failures = new Map<string, string>()
    const { signal } = job.controller
    try {
      await this.#prepareAll(uid, vm, job, failures, only)
    } catch (error) {
      for (const disk of vm.spec.disks) failures.set(disk.name, adviceOf(error))
    } finally {
      if (failures.size > 0 && !signal.aborted) this.#failures.set(uid, failures)
      this.#jobs.delete(uid)
      this.#changed(uid)
    }
  }

  async #prepareAll(
    uid: string,
    vm: VirtualMachine,
    job: Job,
    failures: Map<string, string>,
    only?: readonly string[],
  ): Promise<void> {
    const { signal } = job.controller
    const places = this.#places()
    const items = layout(vm, places).filter(({ name }) => !only || only.includes(name))
    await this.#removeParts(items)
    const context = this.#lookContext(vm, places)
    for (const item of items) {
      signal.throwIfAborted()
      const before = await look(item, context)
      const due = before.state === 'absent' || before.stale === true
      try {
        if (due) await this.#make(uid, item, before.path !== undefined, vm, job)
        if (item.kind === 'disk' && before.state !== 'failed')
          await this.#made.note(uid, item.name, item.path, await markOfBase(item))
      } catch (error) {
        signal.throwIfAborted()
        failures.set(item.name, adviceOf(error))
        this.#options.log.warn('disk could not be prepared', { uid, disk: item.name, err: error })
      }
      if (due) this.#changed(uid)
    }
  }

  /** A folder that can't be read is told where something is made in it. */
  async #removeParts(items: readonly DiskItem[]): Promise<void> {
    const made = items.flatMap((item) => (isMakable(item) ? [dirname(item.path)] : []))
    for (const dir of new Set(made))
      await removeParts(dir).catch((error: unknown) => {
        if (errnoOf(error) !== 'ENOENT') this.#options.log.debug('parts stay', { dir, err: error })
      })
  }

  async #make(uid: string, item: DiskItem, exists: boolean, vm: VirtualMachine, job: Job): Promise<void> {
    const { signal } = job.controller
    if (item.kind === 'export') return this.#exports.probe(uid, item, signal)
    if (!isMakable(item)) return
    const onPercent = (percent: number) => this.#progress(uid, item.name, percent, job)
    const shared = { images: this.#images, space: this.#space, slots: this.#slots }
    return make(item, exists, { vm, ...shared, signal, onPercent })
  }

  #progress(uid: string, name: string, percent: number, job: Job): void {
    if (job.percent.get(name) === percent) return
    job.percent.set(name, percent)
    this.#changed(uid)
  }

  #changed(uid: string): void {
    for (const listener of [...this.#listeners])
      try {
        listener(uid)
      } catch (error) {
        this.#options.log.error('listener of disks failed', { uid, err: error })
      }
  }
}

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../lib/clock.ts'
import { adviceOf, errnoOf, PlasmaError } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { layout, ownDirs, type Places, uidOf } from './disk-layout.ts'
import { look } from './disk-look.ts'
import { make } from './disk-make.ts'
import { removeParts } from './durable-files.ts'
import { Images } from './images.ts'
import type { Pool } from './pools.ts'
import type { DiskState, Disks } from './ports.ts'
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

/** Copies and downloads load disk and network: no more than this many machines at once. */
const mostAtOnce = 2

interface Job {
  readonly controller: AbortController
  /** Percent by disk name. */
  readonly percent: Map<string, number>
  done: Promise<void>
}

/** Disks of this host's machines, made by qemu-img and by us. */
export class HostDisks implements Disks {
  readonly #options: HostDisksOptions
  readonly #images: Images
  readonly #jobs = new Map<string, Job>()
  /** What failed in the last preparation: message by disk name, by uid. */
  readonly #failures = new Map<string, ReadonlyMap<string, string>>()
  readonly #listeners = new Set<(uid: string) => void>()
  readonly #slots = new Slots(mostAtOnce)
  #closed = false

  constructor(options: HostDisksOptions) {
    this.#options = options
    const { imageDir, dataDir, clock, stallMs } = options
    const cacheDir = join(dataDir, 'images', 'cache')
    this.#images = new Images({ imageDir, cacheDir, clock, ...(stallMs === undefined ? {} : { stallMs }) })
  }

  async observe(vm: VirtualMachine): Promise<readonly DiskState[]> {
    const uid = uidOf(vm)
    const seen = await Promise.all(layout(vm, this.#places()).map((item) => look(item, vm)))
    const job = this.#jobs.get(uid)
    const failures = this.#failures.get(uid)
    return seen.map((disk) => {
      if (disk.state !== 'absent') return disk
      const progressPercent = job?.percent.get(disk.name)
      if (job)
        return { ...disk, state: 'preparing', ...(progressPercent === undefined ? {} : { progressPercent }) }
      const message = failures?.get(disk.name)
      return message === undefined ? disk : { ...disk, state: 'failed', message }
    })
  }

  prepare(vm: VirtualMachine): void {
    const uid = uidOf(vm)
    if (this.#closed || this.#jobs.has(uid)) return
    this.#failures.delete(uid)
    const job: Job = { controller: new AbortController(), percent: new Map(), done: Promise.resolve() }
    this.#jobs.set(uid, job)
    job.done = this.#run(uid, vm, job)
  }

  async remove(vm: VirtualMachine): Promise<void> {
    const uid = uidOf(vm)
    const job = this.#jobs.get(uid)
    job?.controller.abort(new PlasmaError('Cancelled', 'the machine is being deleted'))
    await job?.done
    this.#failures.delete(uid)
    for (const dir of ownDirs(vm, this.#places())) await rm(dir, { recursive: true, force: true })
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

  /** Never rejects: what fails is kept for `observe`. */
  async #run(uid: string, vm: VirtualMachine, job: Job): Promise<void> {
    const failures = new Map<string, string>()
    const { signal } = job.controller
    try {
      await this.#slots.use(signal, () => this.#prepareAll(uid, vm, job, failures))
    } catch (error) {
      for (const disk of vm.spec.disks) failures.set(disk.name, adviceOf(error))
    } finally {
      if (failures.size > 0 && !signal.aborted) this.#failures.set(uid, failures)
      this.#jobs.delete(uid)
      this.#changed(uid)
    }
  }

  async #prepareAll(uid: string, vm: VirtualMachine, job: Job, failures: Map<string, string>): Promise<void> {
    const { signal } = job.controller
    const places = this.#places()
    for (const dir of ownDirs(vm, places))
      await removeParts(dir).catch((error: unknown) => {
        if (errnoOf(error) !== 'ENOENT') throw error
      })
    for (const item of layout(vm, places)) {
      signal.throwIfAborted()
      const before = await look(item, vm)
      if (before.state !== 'absent') continue
      const onPercent = (percent: number) => this.#progress(uid, item.name, percent, job)
      try {
        await make(item, before.path !== undefined, { vm, images: this.#images, signal, onPercent })
      } catch (error) {
        signal.throwIfAborted()
        failures.set(item.name, adviceOf(error))
        this.#options.log.warn('disk could not be prepared', { uid, disk: item.name, err: error })
      }
      this.#changed(uid)
    }
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

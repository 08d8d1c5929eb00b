import { closeSync, openSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { connect as connectSocket, createServer } from 'node:net'
import { join } from 'node:path'
import { type Client, openClient } from '../cli/client.ts'
import { run, spawnDetached } from '../host/exec.ts'
import { vmPaths } from '../host/paths.ts'
import { sleep, systemClock } from '../lib/clock.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import type { Stage } from './mode.ts'
import { below, qemusOf } from './qemus.ts'

const vmsPath = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'
const pollMs = 5
const startDeadlineMs = 30_000

export interface Seen {
  readonly vm: VirtualMachine
  /** Monotonic ms at which the watch showed it. */
  readonly at: number
}

/** A scratch folder with a server of its own in a process of its own, and one machine `drill` that boots a real guest. */
export class Lab {
  readonly #stage: Stage
  readonly dir: string
  readonly #dataDir: string
  readonly #runDir: string
  readonly #port: number
  #serverPid: number | undefined

  private constructor(stage: Stage, dir: string, port: number) {
    this.#stage = stage
    this.dir = dir
    this.#dataDir = join(dir, 'data')
    this.#runDir = join(dir, 'run')
    this.#port = port
  }

  /** Makes the folder and puts the guest's kernel and initrd in place. @throws PlasmaError `GuestMissing` */
  static async make(stage: Stage): Promise<Lab> {
    const dir = await mkdtemp(join(stage.folder, 'one-'))
    const lab = new Lab(stage, dir, await freePort())
    const images = join(lab.#dataDir, 'images', 'hello')
    await mkdir(images, { recursive: true, mode: 0o700 })
    for (const file of ['vmlinuz', 'initrd.img']) {
      await copyFile(join(stage.guestDir, file), join(images, file)).catch((error: unknown) => {
        const hint = 'build it with: sh scripts/guest.sh .cache/guest'
        throw new PlasmaError('GuestMissing', `the drill's guest is not there: ${messageOf(error)}`, {
          hint,
          cause: error,
        })
      })
    }
    return lab
  }

  now(): number {
    return systemClock.elapsed()
  }

  get client(): Client {
    const connection = { host: '127.0.0.1', port: this.#port, dataDir: this.#dataDir, flags: '' }
    return openClient(connection, systemClock)
  }

  /** Ends a QEMU by SIGKILL; resolves when its process is gone. */
  async kill(pid: number): Promise<void> {
    process.kill(pid, 'SIGKILL')
    await this.until('the QEMU has ended', startDeadlineMs, async () => !isThere(pid))
  }

  /** Resolves once a server answers, ready or not. */
  answering(): Promise<void> {
    return this.until('the server answers', startDeadlineMs, async () => {
      await this.#with((client) => client.json('GET', '/version', { timeoutMs: 2_000 }))
      return true
    })
  }

  /** Runs a command of the program against the lab's server. @returns its standard output @throws PlasmaError */
  async cli(...words: string[]): Promise<string> {
    const flags = ['--server', `127.0.0.1:${this.#port}`, '--data-dir', this.#dataDir]
    return (await run(this.#stage.program, [...flags, ...words])).stdout
  }

  async wipeStore(): Promise<void> {
    await rm(join(this.#dataDir, 'store'), { recursive: true, force: true })
  }

  /** Starts the server. @returns ms from spawn until it says it is ready */
  async startServer(): Promise<number> {
    await mkdir(this.dir, { recursive: true })
    const output = openSync(join(this.dir, 'server.log'), 'a', 0o600)
    const began = this.now()
    const flags = [
      '--data-dir',
      this.#dataDir,
      '--run-dir',
      this.#runDir,
      '--listen',
      `127.0.0.1:${this.#port}`,
      // Its default address is for the server that this machine has besides.
      '--grpc-listen',
      'none',
    ]
    try {
      const { pid } = await spawnDetached(this.#stage.program, ['serve', ...flags, '--host-name', 'drill'], {
        output,
      })
      this.#serverPid = pid
    } finally {
      closeSync(output)
    }
    await this.until('the server is ready', startDeadlineMs, async () => {
      const client = this.client
      try {
        await client.text('GET', '/readyz', { timeoutMs: 2_000 })
        return true
      } finally {
        client.close()
      }
    })
    return this.now() - began
  }

  /** Ends the server; resolves when its process is gone. */
  async stopServer(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    if (this.#serverPid === undefined) return
    process.kill(this.#serverPid, signal)
    // The child does not hold the event loop; a timer does. It has been reaped when signal 0 finds no one.
    const pid = this.#serverPid
    await this.until('the server has ended', startDeadlineMs, async () => !isThere(pid))
    this.#serverPid = undefined
  }

  async apply(): Promise<void> {
    const metadata = { name: 'drill', namespace: 'default' }
    const kernel = { image: 'hello/vmlinuz', initrd: 'hello/initrd.img', cmdline: 'console=ttyS0 quiet' }
    const disks = [{ name: 'data', size: '64Mi' }]
    const spec = { memory: '256Mi', kernel, disks, runStrategy: 'Always', terminationGracePeriodSeconds: 10 }
    const body = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata, spec }
    await this.#with((client) => client.json('POST', vmsPath, { body }))
  }

  get(): Promise<VirtualMachine> {
    return this.#with((client) => client.json<VirtualMachine>('GET', `${vmsPath}/drill`))
  }

  /** Waits until the watch shows what is wanted. @throws PlasmaError `Timeout` naming `what` */
  async waitFor(what: string, wanted: (vm: VirtualMachine) => boolean, timeoutMs = 60_000): Promise<Seen> {
    const timeout = AbortSignal.timeout(timeoutMs)
    const client = this.client
    try {
      for await (const frame of client.watch<VirtualMachine>(vmsPath, {
        signal: AbortSignal.any([timeout, this.#stage.signal]),
      })) {
        if (frame.object.metadata.name === 'drill' && wanted(frame.object))
          return { vm: frame.object, at: this.now() }
      }
      throw new PlasmaError('WatchEnded', `the watch ended before ${what}`)
    } catch (error) {
      if (!timeout.aborted) throw error
      throw new PlasmaError('Timeout', `not within ${timeoutMs / 1000} s: ${what}`, {
        hint: `see ${this.dir}/server.log`,
      })
    } finally {
      client.close()
    }
  }

  /** Waits until the guest of this launch has said that it is up `times` times since the run directory was made. */
  async guestUp(uid: string, times: number): Promise<void> {
    await this.until('the guest is up', 90_000, async () => this.boots(uid) >= times)
  }

  /** How often the guest has said that it is up. */
  boots(uid: string): number {
    try {
      return (
        readFileSync(vmPaths(this.#runDir, uid).consoleLog, 'latin1').split('PlasmaVMC guest is up').length -
        1
      )
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return 0
      throw error
    }
  }

  /** Types a line on the guest's serial console. */
  type(uid: string, line: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connectSocket(vmPaths(this.#runDir, uid).console)
      socket.once('error', reject)
      socket.end(`\n${line}\n`, () => resolve())
      socket.resume()
    })
  }

  async wipeRunDir(): Promise<void> {
    await rm(this.#runDir, { recursive: true, force: true })
  }

  /** Tries until `test` gives true; its errors count as not yet. */
  async until(what: string, timeoutMs: number, test: () => Promise<boolean>): Promise<void> {
    const deadline = this.now() + timeoutMs
    let last: unknown
    while (this.now() < deadline) {
      this.#stage.signal.throwIfAborted()
      try {
        if (await test()) return
      } catch (error) {
        last = error
      }
      await sleep(systemClock, pollMs, this.#stage.signal)
    }
    const why = last === undefined ? '' : `: ${messageOf(last)}`
    throw new PlasmaError('Timeout', `not within ${timeoutMs / 1000} s: ${what}${why}`, {
      hint: `see ${this.dir}/server.log`,
    })
  }

  /** Ends the server and every QEMU of the lab, and removes the folder unless `keep`. */
  async close(keep: boolean): Promise<void> {
    await this.stopServer('SIGKILL').catch(() => {})
    for (const { pid } of qemusOf(below(this.#runDir))) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch (error) {
        if (errnoOf(error) !== 'ESRCH') throw error
      }
    }
    if (!keep) await rm(this.dir, { recursive: true, force: true, maxRetries: 5 })
  }

  async #with<T>(use: (client: Client) => Promise<T>): Promise<T> {
    const client = this.client
    try {
      return await use(client)
    } finally {
      client.close()
    }
  }
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false
    throw error
  }
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port')),
      )
    })
  })
}

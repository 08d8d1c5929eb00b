import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Client, openClient } from '../../src/cli/client.ts'
import { freePort } from '../../src/drill/lab.ts'
import { type VmPaths, vmPaths } from '../../src/host/paths.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { errnoOf, messageOf } from '../../src/lib/errors.ts'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { doubles, endGuards, type Qemu, qemusOf } from './proc.ts'

export const program = resolve('bin/plasmavmc')
export const machinesPath = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'
/** Generous: it only ends a test that would never end. */
export const deadlineMs = 60_000
const pollMs = 20
const guardMs = 100

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface StartOptions {
  /** Another `bin/plasmavmc` than this checkout's. */
  readonly program?: string
  /** More flags of `serve`. */
  readonly flags?: readonly string[]
  /** A command that ends by executing what follows it, such as `unshare -m`. */
  readonly under?: readonly string[]
}

interface EventView {
  readonly reason: string
  readonly type: string
  readonly message: string
  readonly count: number
  readonly involvedObject: { readonly name: string }
}

type Vm = VirtualMachine
type Json = Readonly<Record<string, unknown>>

/** A scratch folder with the real program serving in a process of its own. */
export class Lab {
  readonly dir = mkdtempSync(join(tmpdir(), 'pve-'))
  readonly dataDir = join(this.dir, 'd')
  readonly runDir = join(this.dir, 'r')
  readonly #port: number
  readonly #own = new Set<ChildProcess>()
  #server: ChildProcess | undefined
  #client: Client | undefined
  /** What two QEMUs of one machine looked like, wherever in a test they were seen. */
  readonly seenTwice: string[] = []
  readonly #guard: NodeJS.Timeout

  private constructor(port: number) {
    this.#port = port
    this.#guard = setInterval(() => this.guard(), guardMs)
  }

  /** A lab whose server runs. */
  static async start(options: StartOptions = {}): Promise<Lab> {
    const lab = new Lab(await freePort())
    await lab.serve(options)
    return lab
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`
  }

  get serverPid(): number {
    if (this.#server?.pid === undefined) throw new Error('no server runs')
    return this.#server.pid
  }

  get env(): NodeJS.ProcessEnv {
    const ours = Object.entries(process.env).filter(([name]) => !name.startsWith('PLASMAVMC_'))
    return { ...Object.fromEntries(ours), PLASMAVMC_DATA_DIR: this.dataDir, PLASMAVMC_SERVER: this.address }
  }

  /** Signs like the CLI; for what the CLI can't say and for many small looks. */
  get client(): Client {
    const connection = { host: '127.0.0.1', port: this.#port, dataDir: this.dataDir, flags: '' }
    this.#client ??= openClient(connection, systemClock)
    return this.#client
  }

  /** Starts the server; resolves when it has looked at every machine. */
  async serve({ program: own = program, flags = [], under = [] }: StartOptions = {}): Promise<void> {
    mkdirSync(this.dir, { recursive: true })
    const output = openSync(join(this.dir, 'server.log'), 'a')
    const places = ['--data-dir', this.dataDir, '--run-dir', this.runDir, '--listen', this.address]
    const fixed = ['--grpc-listen', 'none', '--host-name', 'lab', '--accelerator', 'tcg']
    const argv = [...under, own, 'serve', ...places, ...fixed, ...flags]
    const child = spawn(argv[0] ?? '', argv.slice(1), { stdio: ['ignore', output, output], env: this.env })
    closeSync(output)
    this.#server = child
    await this.until('the server is ready', async () => {
      if (hasExited(child)) return true
      await this.client.text('GET', '/readyz', { timeoutMs: 2_000 })
      return true
    })
    if (hasExited(child)) throw this.#failure('the server is ready', new Error('it has ended'))
  }

  /** Ends the server; resolves when its process is gone. */
  async end(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#server
    if (child && !hasExited(child)) {
      const ended = once(child, 'exit')
      child.kill(signal)
      await ended
    }
    this.#server = undefined
    this.#client?.close()
    this.#client = undefined
  }

  /** Resolves when the server has ended by itself or by another's hand. */
  async ended(): Promise<void> {
    await this.until('the server has ended', () => !this.#server || hasExited(this.#server))
    await this.end()
  }

  async restart(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL', options: StartOptions = {}): Promise<void> {
    await this.end(signal)
    await this.serve(options)
  }

  /** Runs a program to its end; it may fail. */
  async run(file: string, args: readonly string[], input = ''): Promise<Ran> {
    const child = this.spawn(file, args)
    const [stdout, stderr] = [text(child.stdout), text(child.stderr)]
    // One that ends without reading it is judged by its exit code.
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
    const [code] = (await once(child, 'close')) as [number | null]
    return { code: code ?? -1, stdout: await stdout, stderr: await stderr }
  }

  /** `bin/plasmavmc …` as a user runs it. */
  cli(...args: readonly string[]): Promise<Ran> {
    return this.run(program, args)
  }

  /** Starts a program that ends with the lab at the latest. */
  spawn(file: string, args: readonly string[]): ChildProcess {
    const child = spawn(file, args, { stdio: 'pipe', env: this.env })
    this.#own.add(child)
    child.once('close', () => this.#own.delete(child))
    return child
  }

  create(manifest: Json): Promise<Vm> {
    return this.client.json('POST', machinesPath, { body: manifest })
  }

  vm(name: string): Promise<Vm> {
    return this.client.json('GET', `${machinesPath}/${name}`)
  }

  patch(name: string, body: Json): Promise<Vm> {
    const contentType = 'application/merge-patch+json'
    return this.client.json('PATCH', `${machinesPath}/${name}`, { body, contentType })
  }

  verb(name: string, verb: string): Promise<unknown> {
    return this.client.json('POST', `${machinesPath}/${name}/${verb}`, { body: {} })
  }

  remove(name: string): Promise<unknown> {
    return this.client.json('DELETE', `${machinesPath}/${name}`)
  }

  /** Waits until a watch shows the machine so. @throws Error naming `what`, the last state and the server's last words */
  async sees(name: string, what: string, wanted: (vm: Vm) => boolean, ms = deadlineMs): Promise<Vm> {
    const timeout = AbortSignal.timeout(ms)
    let last: Vm | undefined
    try {
      const query = { fieldSelector: `metadata.name=${name}` }
      for await (const { object } of this.client.watch<Vm>(machinesPath, { query, signal: timeout })) {
        if (object.metadata.name !== name) continue
        last = object
        if (wanted(object)) return object
      }
      throw new Error('the watch ended')
    } catch (error) {
      throw this.#failure(`${name}: ${what}`, error, JSON.stringify(last?.status, null, 1))
    }
  }

  running(name: string): Promise<Vm> {
    return this.sees(name, 'is Running', (vm) => vm.status?.phase === 'Running')
  }

  /** Waits until the object is no more. */
  async gone(name: string, ms = deadlineMs): Promise<void> {
    const isGone = async () => {
      const { items } = await this.client.json<{ items: Vm[] }>('GET', machinesPath)
      return !items.some((vm) => vm.metadata.name === name)
    }
    await this.until(`${name} is gone`, isGone, ms)
  }

  /** Tries until `test` gives true; its errors count as not yet. */
  async until(what: string, test: () => boolean | Promise<boolean>, ms = deadlineMs): Promise<void> {
    const deadline = performance.now() + ms
    let last: unknown
    while (performance.now() < deadline) {
      try {
        if (await test()) return
        last = undefined
      } catch (error) {
        last = error
      }
      await new Promise((done) => setTimeout(done, pollMs))
    }
    throw this.#failure(what, last)
  }

  /** The live QEMUs with this uid, or all whose files lie in this lab. */
  qemus(uid?: string): Qemu[] {
    const ours = (argv: readonly string[]) => argv.some((word) => word.includes(`${this.dir}/`))
    return qemusOf((argv) => (uid === undefined ? ours(argv) : argv.includes(uid)))
  }

  /** Notes machines that have two QEMUs right now; `close` fails if there ever was one. */
  guard(): void {
    for (const twice of doubles((argv) => argv.some((word) => word.includes(`${this.dir}/`)))) {
      this.seenTwice.push(twice.map(({ pid, argv }) => `${pid}: ${argv.join(' ')}`).join('\n'))
    }
  }

  paths(uid: string): VmPaths {
    return vmPaths(this.runDir, uid)
  }

  /** What the guest wrote to its serial console since the run directory was made. */
  console(uid: string): string {
    try {
      return readFileSync(this.paths(uid).consoleLog, 'latin1')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return ''
      throw error
    }
  }

  /** How often the guest has said that it is up. */
  boots(uid: string): number {
    return this.console(uid).split('PlasmaVMC guest is up').length - 1
  }

  async booted(uid: string, times: number): Promise<void> {
    await this.until(`the guest has booted ${times} times`, () => this.boots(uid) >= times, 2 * deadlineMs)
  }

  /** The events of a machine with this reason. */
  async eventsOf(name: string, reason: string): Promise<EventView[]> {
    const { items } = await this.client.json<{ items: EventView[] }>(
      'GET',
      '/api/v1/namespaces/default/events',
    )
    return items.filter((event) => event.involvedObject.name === name && event.reason === reason)
  }

  /** Waits until as many events of this reason were recorded; more would be one happening told twice. */
  async told(name: string, reason: string, count: number): Promise<void> {
    const counted = async () =>
      (await this.eventsOf(name, reason)).reduce((sum, event) => sum + event.count, 0)
    await this.until(`${count} events ${reason}`, async () => (await counted()) >= count)
    const all = await counted()
    if (all !== count) throw new Error(`${all} events ${reason} of ${name}, not ${count}`)
  }

  /** Types a line on the guest's serial console. */
  type(uid: string, line: string): Promise<void> {
    return new Promise((done, fail) => {
      const socket = connect(this.paths(uid).console)
      socket.once('error', fail)
      socket.end(`\n${line}\n`, done)
      socket.resume()
    })
  }

  /** Puts the kernels and initrd of the tiny guest where a machine may name them as `hello/…`. */
  installGuest(): void {
    const images = join(this.dataDir, 'images', 'hello')
    mkdirSync(images, { recursive: true })
    for (const file of ['vmlinuz', 'vmlinux', 'initrd.img'])
      provide(resolve('.cache/guest', file), join(images, file))
  }

  /**
   * Ends the server, its guard, every QEMU of the lab and whatever it spawned, and removes the folder.
   * @throws Error where a machine ever had two QEMUs
   */
  async close(): Promise<void> {
    await this.end()
    clearInterval(this.#guard)
    for (const child of this.#own) child.kill('SIGKILL')
    endGuards(this.dir)
    for (const { pid } of this.qemus()) process.kill(pid, 'SIGKILL')
    await this.until('every QEMU of the lab has ended', () => this.qemus().length === 0)
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 })
    if (this.seenTwice[0] !== undefined) throw new Error(`two QEMUs of one machine:\n${this.seenTwice[0]}`)
  }

  #failure(what: string, error: unknown, seen = ''): Error {
    let log = ''
    try {
      log = readFileSync(join(this.dir, 'server.log'), 'utf8').slice(-2_000)
    } catch {
      // Without a log there is nothing more to say.
    }
    const why = error === undefined ? '' : ` (${messageOf(error)})`
    return new Error(`not seen: ${what}${why}\n${seen}\nserver: ${log}`, { cause: error })
  }
}

/** Hard-links where both lie on one file system, copies elsewhere. */
function provide(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch {
    copyFileSync(from, to)
  }
}

const hasExited = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

async function text(stream: NodeJS.ReadableStream | null): Promise<string> {
  let all = ''
  for await (const chunk of stream ?? []) all += String(chunk)
  return all
}

function manifest(name: string, spec: Json): Json {
  return { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata: { name }, spec }
}

/** The smallest machine: SeaBIOS with nothing to boot. It does not know a power button. */
export function tiny(name: string, spec: Json = {}): Json {
  const devices = { rng: false, balloon: false, guestAgent: false }
  return manifest(name, { memory: '32Mi', machine: 'pc', devices, terminationGracePeriodSeconds: 0, ...spec })
}

const unused = 'initcall_blacklist=crypto_kdf108_init,init_kprobe_trace'
/**
 * What tells Linux to leave out what takes long under TCG and is of no use here: tests of itself, tables for tracing,
 * zeroed memory, ways around flaws of processors.
 */
export const quickWords = `cryptomgr.notests ${unused} init_on_alloc=0 mitigations=off`

/**
 * The kernel of the tiny Linux guest, decompressed: with `quickWords` it boots in a third less time. guest.test.ts
 * boots it as distributions do.
 */
export function tinyKernel(words = ''): Json {
  const cmdline = `console=ttyS0 quiet ${quickWords} ${words}`.trim()
  return { image: 'hello/vmlinux', initrd: 'hello/initrd.img', cmdline }
}

/** A machine with the tiny Linux guest, which counts its boots on its disk. */
export function linux(name: string, spec: Json = {}): Json {
  const kernel = tinyKernel()
  const disks = [{ name: 'data', size: '16Mi', format: 'raw' }]
  return manifest(name, { memory: '192Mi', kernel, disks, terminationGracePeriodSeconds: 30, ...spec })
}

/** The process of a machine that has one. */
export function processOf(vm: Vm): NonNullable<NonNullable<Vm['status']>['process']> {
  const process = vm.status?.process
  if (!process) throw new Error(`${vm.metadata.name} has no process in the phase ${vm.status?.phase}`)
  return process
}

export function uidOf(vm: Vm): string {
  return vm.metadata.uid ?? ''
}

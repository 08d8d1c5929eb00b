import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { type Client, openClient } from '../../../src/cli/client.ts'
import { type VmPaths, vmPaths } from '../../../src/host/paths.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import { program, type Ran } from '../lab.ts'
import {
  ended,
  hasExited,
  namesIn,
  namespaceOf,
  parentOf,
  pidsIn,
  proc,
  readIfThere,
  signal,
  textOf,
} from './processes.ts'

const port = 7443
const node = process.execPath

/** A process of a host, by the pid that the machine knows it by; the host itself knows it by another. */
export interface Process {
  readonly pid: number
  readonly argv: readonly string[]
}

/** How a process of a host is told from the others. */
export type Kind = 'server' | 'guard' | 'qemu'

const kinds: Readonly<Record<Kind, (argv: readonly string[]) => boolean>> = {
  server: (argv) =>
    argv.includes('serve') && argv.some((word) => word.endsWith('.js') || word.endsWith('.ts')),
  guard: (argv) =>
    argv.includes('guard') && argv.some((word) => word.endsWith('.js') || word.endsWith('.ts')),
  qemu: (argv) => argv.includes('-uuid'),
}

export interface HostOptions {
  readonly name: string
  readonly address: string
  /** Network namespace. */
  readonly namespace: string
  /** Its folder: data, run directory, logs. */
  readonly dir: string
  /** Flags of `serve` besides those of every host. */
  readonly flags: () => readonly string[]
}

/** A host: namespaces of its own for network, processes and mounts, a boot id, folders, and a server. */
export class Host {
  readonly name: string
  readonly address: string
  readonly dataDir: string
  readonly runDir: string
  readonly #options: HostOptions
  readonly #init: { child?: ChildProcess; pid: number; namespace: string } = { pid: 0, namespace: '' }
  #relay: ChildProcess | undefined
  #outerPort = 0
  #client: Client | undefined
  #consoles = new Map<string, string>()

  constructor(options: HostOptions) {
    this.#options = options
    this.name = options.name
    this.address = options.address
    this.dataDir = join(options.dir, 'd')
    this.runDir = join(options.dir, 'r')
    mkdirSync(this.dataDir, { recursive: true, mode: 0o700 })
  }

  get isOn(): boolean {
    return this.#init.child !== undefined && !hasExited(this.#init.child)
  }

  get log(): string {
    return join(this.#options.dir, 'server.log')
  }

  /** Switches the host on: an empty run directory, a new boot id, and no process yet. */
  async boot(): Promise<void> {
    this.#keepConsoles()
    rmSync(this.runDir, { recursive: true, force: true })
    const bootId = join(this.#options.dir, 'boot-id')
    writeFileSync(bootId, `${randomUUID()}\n`)
    const own = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
    const init = ['sh', resolve('test/e2e/cluster/init.sh'), bootId]
    const under = [
      '--pdeathsig',
      'KILL',
      '--',
      'nsenter',
      `--net=/run/netns/${this.#options.namespace}`,
      '--',
    ]
    const child = spawn('setpriv', [...under, ...own, ...init], { stdio: ['ignore', 'pipe', 'pipe'] })
    const said = await Promise.race([
      once(child.stdout, 'data').then(([data]) => String(data)),
      once(child.stderr, 'data').then(([data]) => String(data)),
      once(child, 'exit').then(() => 'it ended'),
    ])
    if (said.trim() !== 'up') throw new Error(`host ${this.name} does not come up: ${said}`)
    const [pid = 0] = proc.pids().filter((one) => parentOf(one) === child.pid)
    Object.assign(this.#init, { child, pid, namespace: namespaceOf(pid, 'pid') })
    await this.#openRelay()
  }

  /** Cuts the power: every process of the host ends at once. Resolves when they have. */
  async powerOff(): Promise<void> {
    const { child, pid } = this.#init
    if (child && !hasExited(child)) {
      process.kill(pid, 'SIGKILL')
      await ended(child)
    }
    this.#closeClient()
  }

  async close(): Promise<void> {
    await this.powerOff()
    this.#relay?.kill('SIGKILL')
    await ended(this.#relay)
  }

  /** Starts a program on the host. */
  spawn(
    argv: readonly string[],
    options: { readonly output?: number; readonly env?: NodeJS.ProcessEnv } = {},
  ) {
    const into = ['--target', String(this.#init.pid), '--net', '--mount', '--pid', '--']
    const { output, env = this.env } = options
    return spawn('nsenter', [...into, ...argv], {
      stdio: output === undefined ? 'pipe' : ['ignore', output, output],
      env,
    })
  }

  get env(): NodeJS.ProcessEnv {
    const ours = Object.entries(process.env).filter(([name]) => !name.startsWith('PLASMAVMC_'))
    const own = { PLASMAVMC_DATA_DIR: this.dataDir, PLASMAVMC_SERVER: `127.0.0.1:${port}` }
    return { ...Object.fromEntries(ours), ...own }
  }

  /** Runs a program on the host to its end; it may fail. */
  async run(...argv: readonly string[]): Promise<Ran> {
    const child = this.spawn(argv)
    const texts = Promise.all([textOf(child.stdout), textOf(child.stderr)])
    child.stdin?.end()
    const [code] = (await once(child, 'close')) as [number | null]
    const [stdout, stderr] = await texts
    return { code: code ?? -1, stdout, stderr }
  }

  /** `bin/plasmavmc …` as a user of the host runs it. */
  cli(...args: readonly string[]): Promise<Ran> {
    return this.run(program, ...args)
  }

  get serveFlags(): string[] {
    const own = ['--data-dir', this.dataDir, '--run-dir', this.runDir, '--listen', `127.0.0.1:${port}`]
    return [...own, '--host-name', this.name, '--accelerator', 'tcg', ...this.#options.flags()]
  }

  /** Starts the server; `ready` waits for it. */
  serve(): void {
    const output = openSync(this.log, 'a')
    this.spawn([program, 'serve', ...this.serveFlags], { output })
    closeSync(output)
  }

  /** The end of the server's log. */
  lastWords(bytes: number): string {
    return readIfThere(this.log).slice(-bytes)
  }

  /** Whether the server says that it is ready. */
  async isReady(): Promise<boolean> {
    await this.client.text('GET', '/readyz', { timeoutMs: 2_000 })
    return true
  }

  /** Reaches the API whatever becomes of the host's network. */
  get client(): Client {
    const connection = { host: '127.0.0.1', port: this.#outerPort, dataDir: this.dataDir, flags: '' }
    this.#client ??= openClient(connection, systemClock)
    return this.#client
  }

  #closeClient(): void {
    this.#client?.close()
    this.#client = undefined
  }

  /** The host's processes, those of the lab's own tools left out. */
  processes(kind?: Kind): Process[] {
    if (!this.isOn) return []
    const wanted = kind === undefined ? () => true : kinds[kind]
    return pidsIn('pid', this.#init.namespace).flatMap((pid) => {
      const argv = proc.cmdline(pid)
      if (pid === this.#init.pid || argv.state !== 'present' || argv.value[0] === 'sleep') return []
      return wanted(argv.value) ? [{ pid, argv: argv.value }] : []
    })
  }

  /** Sends a signal to all processes of these kinds. @returns to how many */
  signal(name: NodeJS.Signals, ...of: readonly Kind[]): number {
    const found = of.flatMap((kind) => this.processes(kind))
    for (const { pid } of found) {
      signal(pid, name)
      // nsenter stops with its child, and would not wait for it any more.
      if (name === 'SIGCONT') signal(parentOf(pid) ?? pid, name)
    }
    return found.length
  }

  /** Stops or continues everything that runs on the host, as a hypervisor under test is paused. */
  signalAll(name: 'SIGSTOP' | 'SIGCONT'): void {
    for (const { pid } of this.processes()) signal(pid, name)
  }

  paths(uid: string): VmPaths {
    return vmPaths(this.runDir, uid)
  }

  /** What a guest wrote to its console on this host, in this boot of the host and those before. */
  console(uid: string): string {
    return (this.#consoles.get(uid) ?? '') + readIfThere(this.paths(uid).consoleLog)
  }

  #keepConsoles(): void {
    for (const uid of namesIn(join(this.runDir, 'vms'))) this.#consoles.set(uid, this.console(uid))
  }

  async #openRelay(): Promise<void> {
    if (this.#relay && !hasExited(this.#relay)) return
    const listener = createServer().listen(0, '127.0.0.1')
    await once(listener, 'listening')
    this.#outerPort = (listener.address() as { port: number }).port
    const argv = [`--net=/run/netns/${this.#options.namespace}`, '--', node]
    const relay = [resolve('test/e2e/cluster/relay.ts'), String(port)]
    this.#relay = spawn('nsenter', [...argv, '--disable-warning=ExperimentalWarning', ...relay], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#relay.send('listen', listener)
    await once(this.#relay, 'message')
    listener.close()
  }
}

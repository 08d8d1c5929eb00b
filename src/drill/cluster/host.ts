import { randomUUID } from 'node:crypto'
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type Client, openClient } from '../../cli/client.ts'
import { type Detached, spawnDetached } from '../../host/exec.ts'
import { guardLog } from '../../host/guard-process.ts'
import { type VmPaths, vmPaths } from '../../host/paths.ts'
import { systemClock } from '../../lib/clock.ts'
import { Door } from './door.ts'
import {
  into,
  namesIn,
  namespaceOf,
  parentOf,
  pidsIn,
  proc,
  readIfThere,
  runInside,
  signal,
  startWithin,
} from './processes.ts'

/** Port of the API on every host. */
export const apiPort = 7443
const upMs = 20_000

/**
 * Process 1 of a host. Gives it a boot id of its own, hides the machine's cgroups, which the hosts would share, says that it is
 * up, and reaps whoever is left to it.
 */
const init = `mount --bind "$1" /proc/sys/kernel/random/boot_id || exit 1
umount -l /sys/fs/cgroup 2>/dev/null
echo up
while :; do
  sleep 86400 &
  wait
done`

/** A process of a host, by the pid that the machine knows it by; the host itself knows it by another. */
export interface Process {
  readonly pid: number
  readonly argv: readonly string[]
}

/** How a process of a host is told from the others. */
export type Kind = 'server' | 'guard' | 'qemu'

/** Whether this is our program, or its entry of a guard, with a command: sh, which executes it, is told in the same way. */
const isOurs = (argv: readonly string[], command: string) =>
  argv[argv.findIndex((one) => /\b(main|guard|guard-entry)\.[jt]s$/.test(one)) + 1] === command

const kinds: Readonly<Record<Kind, (argv: readonly string[]) => boolean>> = {
  server: (argv) => isOurs(argv, 'serve'),
  guard: (argv) => isOurs(argv, 'guard'),
  qemu: (argv) => argv.includes('-uuid'),
}

export interface HostOptions {
  readonly name: string
  readonly address: string
  /** Network namespace. */
  readonly namespace: string
  /** Its folder: data, run directory, logs. */
  readonly dir: string
  /** The program that serves: a file. */
  readonly program: string
  /** Flags of `serve` besides those of every host; asked for at each start. */
  readonly flags: () => readonly string[]
}

/**
 * A host: namespaces of its own for network, processes and mounts, a boot id, folders, and a server whose API is asked
 * from outside of its network.
 */
export class NamespaceHost {
  readonly name: string
  readonly address: string
  readonly dataDir: string
  readonly runDir: string
  readonly #options: HostOptions
  #power: Detached | undefined
  #init = 0
  #namespace = ''
  readonly #consoles = new Map<string, string>()
  #door: Door | undefined
  #client: Client | undefined

  constructor(options: HostOptions) {
    this.#options = options
    this.name = options.name
    this.address = options.address
    this.dataDir = join(options.dir, 'd')
    this.runDir = join(options.dir, 'r')
    mkdirSync(this.dataDir, { recursive: true, mode: 0o700 })
  }

  get isOn(): boolean {
    return this.#power !== undefined
  }

  /** Switches the host on: an empty run directory, a new boot id, and no process yet. @throws Error */
  async boot(): Promise<void> {
    this.#keepConsoles()
    rmSync(this.runDir, { recursive: true, force: true })
    const [bootId, said] = [join(this.#options.dir, 'boot-id'), join(this.#options.dir, 'init.log')]
    writeFileSync(bootId, `${randomUUID()}\n`)
    const output = openSync(said, 'w', 0o600)
    const own = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
    this.#power = await startWithin(this.#options.namespace, [...own, 'sh', '-c', init, 'sh', bootId], output)
    closeSync(output)
    for (const end = performance.now() + upMs; !readIfThere(said).includes('up\n'); await pause(5)) {
      if (performance.now() > end) throw new Error(`host ${this.name} does not come up: ${readIfThere(said)}`)
    }
    const { pid } = this.#power
    this.#init = proc.pids().find((one) => parentOf(one) === pid) ?? 0
    this.#namespace = namespaceOf(this.#init, 'pid')
    this.#door ??= await Door.open(this.#options.namespace, this.#options.dir, apiPort)
  }

  /** Cuts the power: every process of the host ends at once. Resolves when they have. */
  async powerOff(): Promise<void> {
    if (!this.#power) return
    signal(this.#init, 'SIGKILL')
    await this.#power.exited
    this.#power = undefined
    this.#client?.close()
    this.#client = undefined
  }

  async close(): Promise<void> {
    await this.powerOff()
    this.#door?.close()
  }

  /** Reaches the API whatever becomes of the host's network. */
  get client(): Client {
    const connection = { host: '127.0.0.1', port: this.#door?.port ?? 0, dataDir: this.dataDir, flags: '' }
    this.#client ??= openClient(connection, systemClock)
    return this.#client
  }

  /** Whether the server says that it is ready. @throws where it does not answer, or says what is not */
  async isReady(): Promise<boolean> {
    await this.client.text('GET', '/readyz', { timeoutMs: 2_000 })
    return true
  }

  /** Runs a program on the host to its end; it may fail. */
  run(...argv: readonly string[]) {
    return runInside(this.#init, argv)
  }

  /** The program as a user of the host runs it. */
  cli(...words: readonly string[]) {
    const flags = ['--server', `127.0.0.1:${apiPort}`, '--data-dir', this.dataDir]
    return this.run(this.#options.program, ...flags, ...words)
  }

  /** Starts the server, this once with more flags where some are given. */
  async serve(more: readonly string[] = []): Promise<void> {
    const own = ['--data-dir', this.dataDir, '--run-dir', this.runDir, '--listen', `127.0.0.1:${apiPort}`]
    const argv = [
      this.#options.program,
      'serve',
      ...own,
      '--host-name',
      this.name,
      ...this.#options.flags(),
      ...more,
    ]
    const output = openSync(this.#log, 'a', 0o600)
    try {
      await spawnDetached('nsenter', into(this.#init, argv), { output, cwd: process.cwd() })
    } finally {
      closeSync(output)
    }
  }

  get #log(): string {
    return join(this.#options.dir, 'server.log')
  }

  /** The ends of the logs of server and guard. */
  lastWords(bytes: number): string {
    const end = (file: string) => readIfThere(file).slice(-bytes)
    return `${end(this.#log)}--- its guard\n${end(guardLog(this.runDir))}`
  }

  /** The host's processes, or those of a kind; process 1 and its child left out. */
  processes(kind?: Kind): Process[] {
    if (!this.isOn) return []
    const wanted = kind === undefined ? () => true : kinds[kind]
    return pidsIn('pid', this.#namespace).flatMap((pid) => {
      const argv = proc.cmdline(pid)
      if (pid === this.#init || argv.state !== 'present' || argv.value[0] === 'sleep') return []
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
}

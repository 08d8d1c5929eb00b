import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Client, openClient } from '../src/cli/client.ts'
import { freePort } from '../src/drill/lab.ts'
import { systemClock } from '../src/lib/clock.ts'
import type { VirtualMachine } from '../src/resources/vm.ts'

export const vmsPath = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'
const root = join(import.meta.dirname, '..')
/** The command of the checkout. */
export const program = join(root, 'bin', 'plasmavmc')

/** The program as it is now, packed for this run: what an installation runs. @returns the command */
export function packed(): readonly string[] {
  const folder = 'bench-bundle'
  execFileSync(process.execPath, [join(root, 'scripts', 'bundle.ts'), folder], { stdio: 'inherit' })
  // As bin/plasmavmc has them.
  const flags = [
    '--disable-warning=ExperimentalWarning',
    '--disable-warning=DEP0123',
    '--max-semi-space-size=8',
  ]
  return [process.execPath, ...flags, join(root, '.cache', folder, 'main.js')]
}

export const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

export interface ServerOptions {
  /** What runs `plasmavmc`. */
  readonly command?: readonly string[]
  /** More flags of `serve`. */
  readonly flags?: readonly string[]
}

/** A server in a process of its own over a scratch folder. */
export class Server {
  readonly dir: string
  readonly port: number
  readonly #options: ServerOptions
  child: ChildProcess | undefined

  private constructor(dir: string, port: number, options: ServerOptions) {
    this.dir = dir
    this.port = port
    this.#options = options
  }

  static async make(options: ServerOptions = {}): Promise<Server> {
    return new Server(await mkdtemp(join(tmpdir(), 'pvbench-')), await freePort(), options)
  }

  get env(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      PLASMAVMC_DATA_DIR: join(this.dir, 'd'),
      PLASMAVMC_SERVER: `127.0.0.1:${this.port}`,
    }
  }

  get runDir(): string {
    return join(this.dir, 'r')
  }

  /** @returns ms from spawn until the server is ready, every machine looked at */
  async start(): Promise<number> {
    const began = performance.now()
    const { command = [program], flags = [] } = this.#options
    const [file = program, ...before] = command
    const args = [
      ...before,
      'serve',
      '--run-dir',
      this.runDir,
      '--listen',
      `127.0.0.1:${this.port}`,
      '--log-level',
      'error',
      ...flags,
    ]
    this.child = spawn(file, args, { env: this.env, stdio: ['ignore', 'ignore', 'inherit'] })
    // One connection for all questions: a handshake each would take the processor from the server that starts.
    let client: Client | undefined
    try {
      for (;;) {
        try {
          client ??= this.client()
          await client.text('GET', '/readyz')
          return performance.now() - began
        } catch {
          if (performance.now() - began > 60_000) throw new Error('the server is not ready after 60 s')
          await pause(5)
        }
      }
    } finally {
      client?.close()
    }
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const ended = new Promise((resolve) => this.child?.once('exit', resolve))
    this.child?.kill(signal)
    await ended
  }

  client(): Client {
    return openClient(
      { host: '127.0.0.1', port: this.port, dataDir: join(this.dir, 'd'), flags: '' },
      systemClock,
    )
  }

  /** Pids of the lab's QEMUs. */
  qemus(): number[] {
    return pidsOf(
      (words) => words.includes('-uuid') && words.some((word) => word.startsWith(`${this.runDir}/`)),
    )
  }

  /** Pids of its guards, which outlive it. */
  guards(): number[] {
    return pidsOf((words) => words.includes('guard') && words.includes(this.runDir))
  }

  async close(): Promise<void> {
    if (this.child?.exitCode === null) await this.stop('SIGKILL')
    for (const pid of [...this.guards(), ...this.qemus()]) process.kill(pid, 'SIGKILL')
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 })
  }
}

function pidsOf(isIt: (words: readonly string[]) => boolean): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      return isIt(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0'))
    } catch {
      return false
    }
  })
}

/** The smallest machine: SeaBIOS with nothing to boot. */
export function tiny(name: string, runStrategy = 'Always'): unknown {
  const devices = { rng: false, balloon: false, guestAgent: false }
  const spec = { runStrategy, memory: '32Mi', machine: 'pc', devices, terminationGracePeriodSeconds: 0 }
  return { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata: { name }, spec }
}

/** Every state a watch shows, with the time it came. */
export class Watched {
  readonly #waiting = new Set<(vm: VirtualMachine) => void>()
  readonly #stop = new AbortController()

  constructor(client: Client) {
    void (async () => {
      try {
        for await (const { object } of client.watch<VirtualMachine>(vmsPath, { signal: this.#stop.signal })) {
          for (const tell of [...this.#waiting]) tell(object)
        }
      } catch (error) {
        if (!this.#stop.signal.aborted) throw error
      }
    })()
  }

  /** Monotonic ms at which the wanted state was shown. */
  until(wanted: (vm: VirtualMachine) => boolean): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('not seen within 60 s')), 60_000)
      const tell = (vm: VirtualMachine) => {
        if (!wanted(vm)) return
        clearTimeout(timer)
        this.#waiting.delete(tell)
        resolve(performance.now())
      }
      this.#waiting.add(tell)
    })
  }

  stop(): void {
    this.#stop.abort()
  }
}

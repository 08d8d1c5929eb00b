import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { truncateSync, writeFileSync } from 'node:fs'

export interface NbdServerOptions {
  readonly file: string
  readonly exportName: string
  readonly port: number
  /** Where it listens; 127.0.0.1 unless given. */
  readonly bind?: string
  readonly readOnly?: boolean
  /** Clients at once; any number unless given. */
  readonly shared?: number
  /** A command that ends by executing what follows it, such as `ip netns exec NAME`. */
  readonly under?: readonly string[]
}

/** A sparse file of zeroes. */
export function blankFile(path: string, bytes: number): string {
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

/** A real qemu-nbd, which goes on when its clients leave. */
export class NbdServer {
  readonly #options: NbdServerOptions
  #child: ChildProcess | undefined
  #said = ''

  constructor(options: NbdServerOptions) {
    this.#options = options
  }

  /** What it wrote. */
  get said(): string {
    return this.#said
  }

  /** Starts it. It may take some ms until it listens. */
  start(): void {
    const { file, exportName, port, bind = '127.0.0.1', readOnly, shared = 0, under = [] } = this.#options
    const own = ['--persistent', `--shared=${shared}`, '--format=raw', `--bind=${bind}`, `--port=${port}`]
    const more = [`--export-name=${exportName}`, ...(readOnly ? ['--read-only'] : []), file]
    const argv = [...under, 'qemu-nbd', ...own, ...more]
    this.#child = spawn(argv[0] ?? '', argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (chunk) => {
        this.#said = `${this.#said}${chunk}`.slice(-4_096)
      })
  }

  /** Kills it; resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
}

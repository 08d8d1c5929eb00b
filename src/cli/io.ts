import type { Readable } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import type { Access } from './access.ts'

/** A stream text goes to; `columns` is set where it is a terminal. */
export interface Output {
  write(text: string | Uint8Array): unknown
  readonly isTTY?: boolean
  readonly columns?: number | undefined
}

/** All a command touches of the outside besides the server and files: given by main, or by a test. */
export interface Io {
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown }
  readonly stdout: Output
  readonly stderr: Output
  readonly env: Readonly<Record<string, string | undefined>>
  readonly uid: number
  readonly clock: Clock
  /** Aborted on Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal
  /** Absolute path of the program, for what other programs are told to call. */
  readonly program: string
  /** The checkout or installation folder. */
  readonly root: string
  /** Called as a plugin of kubectl: what is not said on the command line is as kubectl would have it. */
  readonly plugin?: boolean
  /** The server, where it is not the one of a data directory. @throws PlasmaError where there is none to be had */
  readonly access?: () => Access
}

/** A command as typed: operands and options, the global ones among them. */
export interface Invocation<O = Readonly<Record<string, unknown>>> {
  readonly args: readonly string[]
  readonly options: O & GlobalOptions
}

export interface GlobalOptions {
  readonly server?: string
  readonly dataDir?: string
  readonly namespace?: string
  /** Whom to be, and in which groups: for who may impersonate. */
  readonly as?: string
  readonly asGroup?: readonly string[]
  readonly kubeconfig?: string
  readonly context?: string
}

import type { Command } from 'commander'
import type { Invocation, Io } from './io.ts'

/** What a file of this folder exports for one command. */
export interface CommandModule<O = unknown> {
  /** Declares operands and options. */
  define(command: Command): void
  /** Command lines for its help, without the program's name; whole ones begin with a parenthesis. */
  readonly examples?: readonly string[]
  /** Does it. @returns the exit code; a rejection is rendered by the program */
  run(invocation: Invocation<O>, io: Io): Promise<number>
}

/** The namespace of an invocation. */
export function namespaceOf(options: { readonly namespace?: string }, io: Pick<Io, 'env'>): string {
  return options.namespace ?? (io.env['PLASMAVMC_NAMESPACE'] || 'default')
}

/** The command that shells run while somebody types; no help lists it. */
export const completeCommand = '__complete'

import { PlasmaError } from '../lib/errors.ts'

export const groups = ['one-host', 'cluster'] as const
/** One server with the embedded store, or three hosts with guards that share an etcd. */
export type Group = (typeof groups)[number]

/** What playing a failure measured. */
export interface Measured {
  /** Fault to status, ms; undefined where nothing tells of it. */
  readonly detectedMs?: number
  /** Fault to the declared state again, ms; undefined where a person must act. */
  readonly recoveredMs?: number
}

/** What is known of a failure without playing it, in so few words that a row of the table fits. */
export interface Texts {
  /** What happens by itself. */
  readonly recovery: string
  /** What a person has to do; `none`. */
  readonly manual: string
}

/** What a failure is played with. */
export interface Stage {
  /** The program: a file. */
  readonly program: string
  /** The folder with the guest's kernel and initrd. */
  readonly guestDir: string
  /** The folder in which labs make theirs. */
  readonly folder: string
  /** The folder of a lab stays where this is so, or where its failure could not be played to its end. */
  readonly keep: boolean
  readonly signal: AbortSignal
  /** Hears what goes on. */
  readonly tell: (what: string) => void
}

/** A way to fail. */
export interface Mode extends Texts {
  readonly group: Group
  readonly name: string
  /** @throws Error that says what was not as it should be */
  readonly play: (stage: Stage) => Promise<Measured>
}

/** @throws PlasmaError `DrillFailed` where it does not hold */
export function expect(holds: boolean, what: string): void {
  if (!holds) throw new PlasmaError('DrillFailed', what)
}

/** Plays in a lab, whose folder stays for a look where that fails. */
export async function playIn<L extends { readonly dir: string; close(keep: boolean): Promise<void> }>(
  lab: L,
  { keep }: Stage,
  play: (lab: L) => Promise<Measured>,
): Promise<Measured> {
  let failed = true
  try {
    const outcome = await play(lab)
    failed = false
    return outcome
  } catch (error) {
    if (error instanceof PlasmaError && error.hint === undefined)
      throw new PlasmaError(error.code, error.message, { hint: `kept: ${lab.dir}`, cause: error })
    throw error
  } finally {
    await lab.close(failed || keep)
  }
}

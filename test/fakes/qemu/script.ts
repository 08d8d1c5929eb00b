import { appendFileSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { errnoOf } from '../../../src/lib/errors.ts'

/** What the guest, or the machine below it, does of itself. */
export const guestActs = ['poweroff', 'reboot', 'panic', 'watchdog', 'io-error', 'internal-error'] as const
export type GuestAct = (typeof guestActs)[number]

/** How one fake QEMU behaves; what is left out is as the real one does it. */
export interface Behaviour {
  /** Ends with this code before anything listens. */
  readonly exitCode?: number
  /** Written to stderr right before it ends by `exitCode`, `exitAfterMs` or `crashOn`. */
  readonly lastWords?: string
  /** Ends with code 1 this long after its start. */
  readonly exitAfterMs?: number
  /**
   * What a client of QMP meets: `absent` no socket file, `refusing` a file that nobody listens on, `silent` no
   * greeting, `mute` a greeting and no answers, `garbage` bytes that are no QMP.
   */
  readonly qmp?: 'answers' | 'absent' | 'refusing' | 'silent' | 'mute' | 'garbage'
  readonly answerAfterMs?: number
  readonly powerdown?: 'obey' | 'ignore'
  readonly quit?: 'obey' | 'ignore'
  /** Commands it dies of, with code 1 and without an answer. */
  readonly crashOn?: readonly string[]
  /** Commands upon which it closes the connection instead of answering, and lives on. */
  readonly closeOn?: readonly string[]
  /** What the guest does when it first runs. */
  readonly guest?: GuestAct
}

/** What the control socket takes, one JSON object a line; each is answered with a line `ok`. */
export type Control =
  | { readonly do: 'behave'; readonly as: Behaviour }
  | { readonly do: 'guest'; readonly act: GuestAct }
  /** Closes the connection of whoever is served. */
  | { readonly do: 'drop' }
  | { readonly do: 'exit'; readonly code: number; readonly words: string }

/** What a fake QEMU did, one line of JSON each. */
export type Entry = { readonly pid: number; readonly uid: string } & (
  | { readonly what: 'start'; readonly launch: number }
  /** Another fake with the same uid lived when this one started. */
  | { readonly what: 'second' }
  | { readonly what: 'command'; readonly name: string }
  | { readonly what: 'exit'; readonly code: number }
)

/** Name of the abstract socket that controls one fake. */
export function controlName(pid: number): string {
  return `\0plasmavmc-fake-qemu-${pid}`
}

/** Where scripts and journals lie: beside the run directory, which a scenario may wipe. */
export function scriptDir(runDir: string): string {
  return resolve(runDir, '..', 'fake')
}

/** The behaviour of each launch of a uid; the last one holds for all that follow. */
export function scriptPath(runDir: string, uid: string): string {
  return join(scriptDir(runDir), `${uid}.json`)
}

export function journalPath(runDir: string): string {
  return join(scriptDir(runDir), 'journal.jsonl')
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}

/** Everything the fakes of a run directory did, oldest first. */
export function readJournal(runDir: string): readonly Entry[] {
  const lines = textOf(journalPath(runDir)).split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as Entry)
}

/** Adds an entry; without a folder for it nothing is kept. */
export function note(runDir: string, entry: Entry): void {
  try {
    appendFileSync(journalPath(runDir), `${JSON.stringify(entry)}\n`)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

/** The behaviour of the launch that begins now, and its number, from 0. */
export function nextBehaviour(
  runDir: string,
  uid: string,
): { readonly behaviour: Behaviour; readonly launch: number } {
  const launch = readJournal(runDir).filter((entry) => entry.what === 'start' && entry.uid === uid).length
  const script = JSON.parse(textOf(scriptPath(runDir, uid)) || '[]') as readonly Behaviour[]
  return { launch, behaviour: script[Math.min(launch, script.length - 1)] ?? {} }
}

import { messageOf, PlasmaError } from '../lib/errors.ts'
import { type Ended, runToEnd } from './exec.ts'

/** What came of a fence command. Only `off` proves anything. */
export type FenceOutcome =
  | { readonly state: 'off'; readonly seen: string }
  | {
      readonly state: 'failed'
      readonly reason: 'CommandMissing' | 'CommandFailed' | 'LiedOff'
      readonly why: string
    }

export interface FenceRun {
  /** The fence agent and its arguments, as in `Host.spec.fencing.command`. */
  readonly command: readonly string[]
  /** For each of the two calls, ms. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

/** Of what an agent says this much is kept, bytes. */
const maxOutput = 4_096
/** Of that, this much is shown, characters. */
const maxShown = 300

const secretName = /pass(w(or)?d)?|secret|token|community/i
/** fence-agents(7): `-p` is the password of the device; `-P` and others are not. */
const shortSecret = /^-p(.*)$/s

/**
 * The values among the arguments that are nobody's to see: of `--password=V`, `--password V`, `-p V`, `-pV` and the
 * like. Options that name a script or a file tell no secret.
 */
export function secretsIn(args: readonly string[]): readonly string[] {
  return args.flatMap((arg, index) => {
    const [, long = '', , value] = /^-{0,2}([A-Za-z][\w-]*)(=(.*))?$/s.exec(arg) ?? []
    const next = args[index + 1]
    const following = next === undefined || next.startsWith('--') ? [] : [next]
    const isSecret = secretName.test(long) && !/script|file/i.test(long)
    if (arg.startsWith('--') || value !== undefined)
      return isSecret ? (value === undefined ? following : [value]) : []
    const joined = shortSecret.exec(arg)?.[1]
    if (joined === undefined) return []
    return joined === '' ? following : [joined]
  })
}

/** Puts `***` wherever one of the secrets stands. */
export function masked(text: string, secrets: readonly string[]): string {
  const longestFirst = [...new Set(secrets)].filter((one) => one !== '').sort((a, b) => b.length - a.length)
  return longestFirst.reduce((shown, secret) => shown.replaceAll(secret, '***'), text)
}

type Call = { readonly ended: Ended } | { readonly error: PlasmaError }

/**
 * Switches a host off with its fence agent, by the API of fence-agents: `--action=off`, then `--action=status`, whose
 * exit code says what is so: 2 off, 0 on, anything else nothing. What `off` says counts for nothing. Each call has the
 * deadline and is killed with all it started. Shows no secret of the arguments.
 * @throws the signal's reason where it was aborted
 */
export async function runFenceCommand(run: FenceRun): Promise<FenceOutcome> {
  const [program = '', ...args] = run.command
  const secrets = secretsIn(args)
  const call = async (action: 'off' | 'status'): Promise<Call> => {
    const options = { timeoutMs: run.timeoutMs, maxBuffer: maxOutput, ownGroup: true, endsWithUs: true }
    try {
      const all = { ...options, onStdout: () => {}, ...(run.signal && { signal: run.signal }) }
      return { ended: await runToEnd(program, [...args, `--action=${action}`], all) }
    } catch (error) {
      run.signal?.throwIfAborted()
      return {
        error: error instanceof PlasmaError ? error : new PlasmaError('CommandFailed', messageOf(error)),
      }
    }
  }
  const words = (action: string, outcome: Call) => masked(`${action}: ${wordsOf(outcome)}`, secrets)
  if (program === '')
    return { state: 'failed', reason: 'CommandMissing', why: 'spec.fencing.command: names no program' }
  const off = await call('off')
  if ('error' in off && off.error.code === 'CommandMissing')
    return { state: 'failed', reason: 'CommandMissing', why: masked(off.error.message, secrets) }
  const status = await call('status')
  const seen = `${words('off', off)}; ${words('status', status)}`
  const power = 'ended' in status ? status.ended.exitCode : undefined
  if (power === 2) return { state: 'off', seen }
  const saidOff = 'ended' in off && off.ended.exitCode === 0
  if (power === 0 && saidOff)
    return { state: 'failed', reason: 'LiedOff', why: `off succeeded, but the host is still on (${seen})` }
  return { state: 'failed', reason: 'CommandFailed', why: seen }
}

function wordsOf(outcome: Call): string {
  if ('error' in outcome) return outcome.error.message
  const { exitCode, signal, stdout, stderr } = outcome.ended
  const how = signal === undefined ? `exit code ${exitCode}` : `ended by ${signal}`
  const said = printable(stderr.trim() || stdout.trim())
  return said === '' ? how : `${how}, "${said}"`
}

/** The end of what was said, on one line. */
function printable(text: string): string {
  const line = text.replace(/[\s\p{Cc}]+/gu, ' ')
  return line.length > maxShown ? `…${line.slice(-maxShown)}` : line
}

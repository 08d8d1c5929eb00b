import { rfc3339 } from '../../lib/clock.ts'
import type { QmpEvent } from '../../qmp/types.ts'

/** What QEMU told of a guest, once: a hint that sharpens what can be asked, and may be lost. `at` is RFC 3339. */
export type Heard = { readonly at: string } & (
  | { readonly what: 'reset' | 'shutdown'; readonly byGuest: boolean; readonly reason: string }
  | { readonly what: 'watchdog'; readonly action: string }
  /** `told` is what the guest said of its panic, for people; empty where it said nothing. */
  | { readonly what: 'panic'; readonly told: string }
  | { readonly what: 'ioError'; readonly node?: string; readonly cause: string; readonly noSpace: boolean }
)

/** More than a pass can hear between two looks; of a storm the last ones count. */
const mostHeard = 16
const longestTold = 200
/** Firmware is through its own resets by then even on a busy host. */
const oneResetMs = 5_000
/** The resets of firmware follow one another closer than this; hardly a guest is up again, and resets, so soon. */
const nextResetMs = 2_000

function toldOf(info: Readonly<Record<string, unknown>> | undefined): string {
  if (!info) return ''
  const members = Object.entries(info).map(([name, value]) =>
    typeof value === 'number' && name.startsWith('arg')
      ? `${name} 0x${value.toString(16)}`
      : `${name} ${value}`,
  )
  return members.join(', ').slice(0, longestTold)
}

/** An event as something heard; undefined for one that tells nothing of the guest's fate. `now` is wall ms. */
export function heardOf(event: QmpEvent, now: number): Heard | undefined {
  const { seconds } = event.timestamp
  const at = rfc3339(seconds > 0 ? seconds * 1000 : now)
  switch (event.event) {
    case 'RESET':
      return { what: 'reset', at, byGuest: event.data.guest, reason: event.data.reason }
    case 'SHUTDOWN':
      return { what: 'shutdown', at, byGuest: event.data.guest, reason: event.data.reason }
    case 'WATCHDOG':
      return { what: 'watchdog', at, action: event.data.action }
    case 'GUEST_PANICKED':
      return { what: 'panic', at, told: toldOf(event.data.info) }
    case 'BLOCK_IO_ERROR': {
      const { operation, reason, nospace = false, 'node-name': node } = event.data
      const cause = nospace ? 'no space left on its storage' : `${operation} failed: ${reason}`
      const known = node === undefined ? {} : { node }
      return { what: 'ioError', at, ...known, cause: cause.slice(0, longestTold), noSpace: nospace }
    }
    default:
      return undefined
  }
}

/** What an agent has heard of a machine and no recorded pass has taken up yet. */
export interface Hearing {
  heard?: readonly Heard[]
  /** The reset that later ones may belong to, and the last that did, monotonic ms. */
  reset?: { readonly firstAt: number; readonly lastAt: number }
}

/**
 * Adds what was heard at `elapsed` (monotonic ms), the oldest left out where it is too much. The watchdog resets by the
 * way a guest does, and firmware resets once or twice more by itself on its way up (SeaBIOS does after each): all of
 * those are one reset, told of by the first.
 */
export function hear(hearing: Hearing, one: Heard, elapsed: number): void {
  if (one.what === 'reset' || (one.what === 'watchdog' && one.action === 'reset')) {
    const { reset } = hearing
    const follows = reset && elapsed - reset.lastAt < nextResetMs && elapsed - reset.firstAt < oneResetMs
    hearing.reset = { firstAt: follows ? reset.firstAt : elapsed, lastAt: elapsed }
    if (follows && one.what === 'reset') return
  }
  hearing.heard = [...(hearing.heard ?? []), one].slice(-mostHeard)
}

import { nodeNames } from '../../host/qemu-disks.ts'
import type { VmStatus } from '../../resources/vm.ts'
import type { Draft } from './draft.ts'
import type { Heard } from './heard.ts'
import type { FailedDisk } from './types.ts'

type Guest = NonNullable<VmStatus['guest']>
type HeardOf<W extends Heard['what']> = Extract<Heard, { what: W }>

function lastHeard<W extends Heard['what']>(draft: Draft, what: W): HeardOf<W> | undefined {
  return draft.seen.heard.findLast((one): one is HeardOf<W> => one.what === what)
}

/**
 * Counts and tells what a running guest did or had done to it: reboots of its own, and its watchdog. What ends or holds
 * it shows in the run state and is told there; a reset that was asked for is nobody's news.
 */
export function noteGuest(draft: Draft): void {
  const { heard } = draft.seen
  const before = draft.status.guest ?? { reboots: 0, watchdogs: 0 }
  let guest: Guest = before
  for (const one of heard) {
    if (one.what === 'reset' && one.byGuest) {
      guest = { ...guest, reboots: guest.reboots + 1, lastRebootAt: one.at }
      draft.tell('Normal', 'GuestRebooted', 'the guest rebooted')
    } else if (one.what === 'watchdog') {
      guest = { ...guest, watchdogs: guest.watchdogs + 1, lastWatchdogAt: one.at }
      // Of the others the run state tells: QEMU holds the guest.
      if (one.action !== 'pause') draft.tell('Warning', 'WatchdogFired', watchdogWords(one.action))
    }
  }
  if (guest !== before) draft.status.guest = guest
}

function watchdogWords(action: string): string {
  const words: Readonly<Record<string, string>> = {
    reset: 'the watchdog fired and reset the guest',
    none: 'the watchdog fired; nothing is done by its action',
    'inject-nmi': 'the watchdog fired and sent the guest an NMI',
  }
  return words[action] ?? `the watchdog fired: ${action}`
}

/** A panic in words: what the guest said of it, where it was heard. */
export function panicWords(draft: Draft): string {
  const told = lastHeard(draft, 'panic')?.told
  return told ? `the guest kernel panicked: ${told}` : 'the guest kernel panicked'
}

/**
 * Which disk failed and why: QEMU's answer names the disks, an event the cause; what was known before stays where
 * neither says anything.
 */
export function ioCause(draft: Draft, failed: readonly FailedDisk[] | undefined): string | undefined {
  const event = lastHeard(draft, 'ioError')
  const heardName = draft.vm.spec.disks.find(({ name }) => nodeNames(name).format === event?.node)?.name
  const causes = (failed ?? []).map(({ name, noSpace }) =>
    name === heardName && event
      ? `disk ${name}: ${event.cause}`
      : `disk ${name}: ${noSpace ? 'no space left on its storage' : 'reading or writing failed'}`,
  )
  if (causes.length > 0) return causes.join('; ')
  if (event) return heardName === undefined ? event.cause : `disk ${heardName}: ${event.cause}`
  return draft.status.ioError?.cause
}

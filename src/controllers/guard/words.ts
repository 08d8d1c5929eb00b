import type { Standing } from './plan.ts'

/** What a guard's words are made of. */
export interface Reasons {
  readonly standing: Standing
  /** Who else the store said has the lease. */
  readonly taken: string | undefined
  /** Why the lease may not be touched yet. */
  readonly unclaimed: string | undefined
  /** Whether it was ever renewed, by this guard or the one before it. */
  readonly renewed: boolean
  /** How long stopping machines takes at most, as the lease says, ms. */
  readonly stopMs: number
  /** It gives the lease up. */
  readonly ending: boolean
  /** Why the first try failed since the lease was last renewed. */
  readonly trouble: string | undefined
  /** What is in the way of the proof that machines are gone. */
  readonly left: string | undefined
}

export const noWoes: Pick<Reasons, 'trouble' | 'left'> = { trouble: undefined, left: undefined }

export const standingWords: Readonly<Record<Standing, string>> = {
  held: 'the lease is held',
  starting: 'the guard is starting',
  suspended: 'the store does not answer; in maintenance, machines run on',
  holding: 'the store does not answer; other hosts have lost it too, so machines run on',
  stopping: 'this host is cut off; failover-enabled machines are being stopped',
  stopped: 'this host is cut off; failover-enabled machines are stopped',
  lost: 'the store does not answer; this host does not fence itself',
}

/** Of somebody else's message. */
const longest = 300

/** Holder, in a guard's words, of its own lease from before a boot. */
export const otherBoot = 'another boot of this host held it last'

/** Why the lease is held or is not. */
export function whyOf({ standing, taken, unclaimed, renewed, ending }: Reasons): string {
  if (taken !== undefined) return `the lease of this host was taken: ${taken}`
  if (ending) return 'the guard ends'
  return !renewed && unclaimed !== undefined ? unclaimed : standingWords[standing]
}

/**
 * What a guard that does not hold the lease waits for, and until when; undefined where it waits for nothing. Without
 * anything that changes by itself: it stands in the Host's status, and is not to be written again and again.
 */
export function waitsFor(reasons: Reasons): string | undefined {
  const { standing, taken, trouble, left, stopMs } = reasons
  const tried = trouble === undefined ? '' : `; the try that failed first: ${trouble.slice(0, longest)}`
  switch (standing) {
    case 'held':
      return undefined
    case 'stopping':
      return `the lease is renewed once machines that fail over are proven gone, for which ${stopMs / 1_000} s are promised; ${left ?? 'they are looked for'}${tried}`
    case 'stopped':
    case 'lost':
      if (taken === otherBoot)
        return 'it takes the lease up once that was silent for as long as the boot before had promised: a copy of this host may run'
      return taken === undefined
        ? `it renews the lease once the store answers${tried}`
        : 'it takes the lease back at its next try'
    case 'holding':
      return `it asks them again each half second, and stops machines 2 s after too few have said so${tried}`
    case 'starting':
      return `it stops machines unless the lease is renewed within 2 s of its start${tried}`
    case 'suspended':
      return `it renews the lease once the store answers${tried}`
  }
}

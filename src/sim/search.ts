import type { Fault, Timed, When } from './faults.ts'
import type { HostParts } from './parts.ts'
import { Random } from './random.ts'
import type { Violation } from './rules.ts'
import { describe, play, type Schedule } from './schedule.ts'

const hostNames = ['host-a', 'host-b', 'host-c', 'host-d', 'host-e']

/** What a random schedule is made of. */
interface Cast {
  readonly random: Random
  readonly hosts: readonly string[]
  readonly vms: readonly string[]
}

/** Small things while machines are started; a failover that is disturbed; anything at any time. */
type Plot = (cast: Cast) => { readonly faults: readonly Timed[]; readonly healAt: number }

const some = <T>(random: Random, least: number, most: number, make: () => T): T[] =>
  Array.from({ length: least + random.int(most - least + 1) }, make)
const whole = (random: Random, least: number, most: number) => Math.round(random.between(least, most))

const skirmish: Plot = (cast) => {
  const { random } = cast
  const when = (): When =>
    random.chance(0.6) ? { at: whole(random, 200, 3_000) } : atCall(cast, whole(random, 0, 2_000))
  const faults = some(random, 1, 4, () => ({ ...when(), fault: anyFault(cast, whole(random, 50, 3_000)) }))
  return { faults, healAt: 4_500 }
}

/** Long enough for a lease to run out, and for a failover. */
const failover: Plot = (cast) => {
  const { random } = cast
  const at = whole(random, 1_200, 2_500)
  const healAt = at + whole(random, 13_000, 18_000)
  const disturbances = some(random, 0, 3, () => {
    const when: When = random.chance(0.5)
      ? { at: at + whole(random, 0, 14_000) }
      : atCall(cast, at + whole(random, 0, 10_000))
    return { ...when, fault: anyFault(cast, whole(random, 50, 6_000)) }
  })
  return { faults: [{ at, fault: lossOf(cast, whole(random, 10_000, 17_000)) }, ...disturbances], healAt }
}

const anything: Plot = (cast) => {
  const { random } = cast
  const when = (): When =>
    random.chance(0.7) ? { at: whole(random, 200, 9_000) } : atCall(cast, whole(random, 0, 9_000))
  const faults = some(random, 2, 5, () => ({ ...when(), fault: anyFault(cast, whole(random, 50, 14_000)) }))
  return { faults, healAt: whole(random, 10_000, 18_000) }
}

/** The schedule of a seed. */
export function randomSchedule(seed: number): Schedule {
  const random = new Random(seed).fork('schedule')
  const hosts = hostNames.slice(0, random.chance(0.85) ? 3 : random.pick([2, 4, 5]))
  const machines = ['one', 'two', 'three'].slice(0, 1 + random.int(2)).map((name) => ({
    name,
    onHostLoss: random.chance(0.75) ? ('Failover' as const) : ('Manual' as const),
  }))
  const plot = random.chance(0.45) ? skirmish : random.chance(0.75) ? failover : anything
  const { faults, healAt } = plot({ random, hosts, vms: machines.map(({ name }) => name) })
  const fencing = random.chance(0.85) ? 'guard' : random.pick(['none', 'command'] as const)
  return { seed, hosts, fencing, machines, faults, healAt }
}

function someHost({ random, hosts, vms }: Cast): string {
  return random.pick([`@${random.pick(vms)}`, '@leader', random.pick(hosts)])
}

/** The moments that matter: before a call is sent, and before its answer is known. */
function atCall(cast: Cast, after: number): When {
  const { random } = cast
  return {
    ...{ after, by: someHost(cast) },
    op: random.pick(['put', 'put', 'put', 'get']),
    key: random.pick(['/virtualmachines/', '/virtualmachines/', '/leases/', '/fenceevidences/', '/term']),
    phase: random.pick(['send', 'answer']),
    nth: 1 + random.int(3),
  }
}

/** What makes a host look lost. */
function lossOf(cast: Cast, forMs: number): Fault {
  const { random } = cast
  const host = someHost(cast)
  const how = random.chance(0.8) ? 'drop' : 'refuse'
  const makers: readonly (() => Fault)[] = [
    () => ({ kind: 'freeze', host, forMs }),
    () => ({ kind: 'power', host, forMs }),
    () => ({ kind: 'cut', from: host, to: '*', both: true, how, forMs }),
    () => ({ kind: 'cut', from: host, to: 'store', both: true, how, forMs }),
    () => ({ kind: 'cut', from: host, to: '*', both: false, how: 'drop', forMs }),
    () => ({ kind: 'stop', host, what: 'guard', forMs }),
    () => ({ kind: 'slow', host, ms: whole(random, 4_000, 12_000), forMs }),
    () => ({ kind: 'store', how: random.pick(['silent', 'refuses']), forMs }),
  ]
  return random.pick(makers)()
}

function anyFault(cast: Cast, forMs: number): Fault {
  const { random, hosts, vms } = cast
  const host = someHost(cast)
  const what = random.pick(['agent', 'guard'] as const)
  const other = random.pick(['store', ...hosts])
  const makers: readonly (() => Fault)[] = [
    () => ({ kind: 'kill', host, what }),
    () => ({ kind: 'stop', host, what, forMs }),
    () => lossOf(cast, forMs),
    () => lossOf(cast, forMs),
    () => ({ kind: 'cut', from: host, to: other, both: random.chance(0.5), how: 'drop', forMs }),
    () => ({ kind: 'cut', from: other, to: host, how: 'drop', forMs }),
    () => ({ kind: 'slow', host, ms: whole(random, 100, 3_000), forMs }),
    () => ({ kind: 'watches' }),
    () => ({ kind: 'jump', host, ms: whole(random, -3_600_000, 3_600_000) }),
    () => ({
      ...{ kind: 'qemu', vm: random.pick(vms), forMs },
      does: random.pick(['die', 'stop', 'mute', 'shutdown', 'guest-panicked', 'io-error']),
    }),
    () => ({
      kind: 'user',
      vm: random.pick(vms),
      does: random.pick(['start', 'stop', 'delete', 'Restart', 'Move']),
    }),
  ]
  return random.pick(makers)()
}

export interface Found {
  readonly schedule: Schedule
  readonly violation: Violation
  /** What happened, line by line. */
  readonly log: readonly string[]
}

/** Plays the schedules of `count` seeds from `first` on, until a rule does not hold. */
export async function search(
  first: number,
  count: number,
  parts: HostParts,
  options: {
    readonly scheduleOf?: (seed: number) => Schedule
    readonly signal?: AbortSignal
    readonly onPlayed?: (seed: number) => void
  } = {},
): Promise<Found | undefined> {
  const { scheduleOf = randomSchedule, signal, onPlayed } = options
  const { stackTraceLimit } = Error
  // Simulated processes are refused a dozen things a second, and nobody reads from where in the program.
  Error.stackTraceLimit = 0
  try {
    for (let seed = first; seed < first + count; seed += 1) {
      signal?.throwIfAborted()
      const schedule = scheduleOf(seed)
      const { violation } = await play(schedule, parts)
      onPlayed?.(seed)
      if (violation) return await logged(await shrink(schedule, violation, parts), parts)
    }
    return undefined
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** At most so many schedules are played to find a smaller one. */
const shrinkTries = 150

/** A smaller schedule that breaks the same rule: without faults that it does not need, and with shorter ones. */
export async function shrink(schedule: Schedule, violation: Violation, parts: HostParts): Promise<Schedule> {
  let best = schedule
  let tries = 0
  for (let smaller = true; smaller; ) {
    smaller = false
    for (const candidate of candidates(best)) {
      if (tries++ >= shrinkTries) return best
      const played = await play(candidate, parts)
      if (played.violation?.rule !== violation.rule) continue
      best = candidate
      smaller = true
      break
    }
  }
  return best
}

function* candidates(schedule: Schedule): Generator<Schedule> {
  const { faults, machines, healAt } = schedule
  for (const fault of faults) yield { ...schedule, faults: faults.filter((one) => one !== fault) }
  if (machines.length > 1)
    for (const machine of machines) yield { ...schedule, machines: machines.filter((one) => one !== machine) }
  if (healAt > 1_000) yield { ...schedule, healAt: Math.round(healAt / 2) }
  for (const [index, timed] of faults.entries()) {
    const shorter = halved(timed)
    if (shorter) yield { ...schedule, faults: faults.with(index, shorter) }
  }
}

/** With half of its time to wait or to last. */
function halved(timed: Timed): Timed | undefined {
  if ('at' in timed && timed.at > 1_000) return { ...timed, at: Math.round(timed.at / 2) }
  const { fault } = timed
  if (!('forMs' in fault) || fault.forMs === undefined || fault.forMs <= 100) return undefined
  return { ...timed, fault: { ...fault, forMs: Math.round(fault.forMs / 2) } }
}

async function logged(schedule: Schedule, parts: HostParts): Promise<Found> {
  const log: string[] = []
  const { violation } = await play(schedule, parts, { tell: (line) => log.push(line), verbose: true })
  if (!violation) throw new Error(`the schedule of seed ${schedule.seed} went another way the second time`)
  return { schedule, violation, log }
}

/** Everything that is needed to see it again. */
export function report({ schedule, violation, log }: Found): string {
  const shown = log.length > 120 ? ['…', ...log.slice(-120)] : log
  return [
    `${violation.message} (${(violation.at / 1000).toFixed(3)} s)`,
    '',
    describe(schedule),
    '',
    ...shown,
    '',
    `again: plasmavmc simulate --seed ${schedule.seed} --schedules 1`,
    '',
  ].join('\n')
}

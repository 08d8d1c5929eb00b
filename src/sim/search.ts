import type { Fault, Timed, When } from './faults.ts'
import type { HostParts } from './parts.ts'
import { Random } from './random.ts'
import type { Violation } from './rules.ts'
import { describe, play, type Schedule } from './schedule.ts'

const hostNames = ['host-a', 'host-b', 'host-c', 'host-d', 'host-e']
/** Long enough for a lease to run out, a failover, and some. */
const longestMs = 22_000
/** The first faults come while the machines are being started. */
const firstMs = 200

/** The schedule of a seed. */
export function randomSchedule(seed: number): Schedule {
  const random = new Random(seed).fork('schedule')
  const hosts = hostNames.slice(0, random.chance(0.8) ? 3 : random.pick([2, 4, 5]))
  const machines = ['one', 'two', 'three'].slice(0, 1 + random.int(3)).map((name) => ({
    name,
    onHostLoss: random.chance(0.75) ? ('Failover' as const) : ('Manual' as const),
  }))
  const count = 1 + random.int(4)
  const latest = random.pick([2_000, 6_000, 14_000])
  const faults = Array.from({ length: count }, (): Timed => {
    const when: When = random.chance(0.7)
      ? { at: Math.round(random.between(firstMs, latest)) }
      : atCall(random, hosts)
    return {
      ...when,
      fault: randomFault(
        random,
        hosts,
        machines.map(({ name }) => name),
      ),
    }
  })
  const fencing = random.chance(0.85) ? 'guard' : random.pick(['none', 'command'] as const)
  return {
    seed,
    hosts,
    fencing,
    machines,
    faults,
    healAt: latest + Math.round(random.between(1_000, longestMs)),
  }
}

/** The moments that matter: before a write is sent, and before its answer is known. */
function atCall(random: Random, hosts: readonly string[]): When {
  return {
    after: Math.round(random.between(0, 12_000)),
    by: random.pick(hosts),
    op: random.pick(['put', 'put', 'put', 'get']),
    key: random.pick(['/virtualmachines/', '/virtualmachines/', '/leases/', '/fenceevidences/', 'term']),
    phase: random.pick(['send', 'answer']),
    nth: 1 + random.int(4),
  }
}

const duration = (random: Random) =>
  Math.round(random.pick([random.between(50, 3_000), random.between(3_000, longestMs)]))

function randomFault(random: Random, hosts: readonly string[], vms: readonly string[]): Fault {
  const host = random.pick(hosts)
  const forMs = duration(random)
  const what = random.pick(['agent', 'guard'] as const)
  const how = random.chance(0.8) ? 'drop' : 'refuse'
  const other = random.pick(['store', ...hosts.filter((name) => name !== host)])
  const makers: readonly (() => Fault)[] = [
    () => ({ kind: 'kill', host, what }),
    () => ({ kind: 'stop', host, what, forMs }),
    () => ({ kind: 'stop', host, what: 'agent', forMs }),
    () => ({ kind: 'freeze', host, forMs }),
    () => ({ kind: 'power', host, forMs }),
    () => ({ kind: 'cut', from: host, to: '*', both: true, how, forMs }),
    () => ({ kind: 'cut', from: host, to: 'store', both: true, how, forMs }),
    () => ({ kind: 'cut', from: host, to: other, both: random.chance(0.5), how, forMs }),
    () => ({ kind: 'cut', from: other, to: host, how: 'drop', forMs }),
    () => ({ kind: 'slow', host, ms: Math.round(random.between(100, 8_000)), forMs }),
    () => ({ kind: 'store', how: random.pick(['silent', 'refuses']), forMs }),
    () => ({ kind: 'watches' }),
    () => ({ kind: 'jump', host, ms: Math.round(random.between(-3_600_000, 3_600_000)) }),
    () => ({
      ...{ kind: 'qemu', vm: random.pick(vms), forMs },
      does: random.pick(['die', 'stop', 'shutdown', 'guest-panicked', 'io-error']),
    }),
    () => ({ kind: 'user', vm: random.pick(vms), does: random.pick(['start', 'stop', 'delete', 'Restart']) }),
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
  for (let seed = first; seed < first + count; seed += 1) {
    signal?.throwIfAborted()
    const schedule = scheduleOf(seed)
    const { violation } = await play(schedule, parts)
    onPlayed?.(seed)
    if (violation) return logged(await shrink(schedule, violation, parts), parts)
  }
  return undefined
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

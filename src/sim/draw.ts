import type { Fault, Timed, When } from './faults.ts'
import { Random } from './random.ts'
import type { Course, MachineFacts, Schedule } from './schedule.ts'

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

/**
 * The host of a machine and another lose the store one after the other, and reach nobody but each other: what the first
 * hears from the second decides whether its machines run on. Or the second only has a bad link, and says now this, now
 * that.
 */
const halves: Plot = (cast) => {
  const { random, hosts, vms } = cast
  const [first, second] = [`@${random.pick(vms)}`, random.pick(hosts)]
  const others = ['store', ...hosts.filter((name) => name !== second)]
  const at = whole(random, 1_500, 3_500)
  const later = at + whole(random, 2_000, 6_500)
  const healAt = at + whole(random, 13_000, 17_000)
  const how = random.chance(0.8) ? ('drop' as const) : ('refuse' as const)
  const from = (host: string, start: number): Timed[] =>
    others
      .filter((to) => random.chance(0.9) && to !== host)
      .map((to) => ({ at: start, fault: { kind: 'cut', from: host, to, both: true, how } }))
  const ill: Timed[] = random.chance(0.4)
    ? from(second, later)
    : [{ at: later - 2_000, fault: { kind: 'slow', host: second, ms: whole(random, 500, 1_500) } }]
  return { faults: [...from(first, at), ...ill], healAt }
}

/**
 * A process is about to write, or has just written, and sleeps for as long as it takes to lose everything: the machine
 * that it would have started, the term in which it led.
 */
const sleeper: Plot = (cast) => {
  const { random, vms } = cast
  const leads = random.chance(0.3)
  const host = leads ? '@leader' : `@${random.pick(vms)}`
  const when: When = {
    ...{ after: whole(random, 0, leads ? 12_000 : 800), by: host, op: 'put' },
    key: leads ? random.pick(['/virtualmachines/', '/leases/', '/fenceevidences/']) : '/virtualmachines/',
    phase: random.chance(0.7) ? 'answer' : 'send',
    // Between the third and the sixth write of a machine that starts its QEMU is forked, and the guest goes on.
    nth: random.pick([1, 2, 3, 3, 4, 4, 5, 5, 6]),
  }
  const forMs = whole(random, 12_000, 17_000)
  const loss: Timed[] = leads
    ? [{ at: whole(random, 1_500, 3_000), fault: lossOf(cast, forMs) }]
    : [
        {
          ...when,
          fault: { kind: 'cut', from: host, to: '*', both: true, forMs: whole(random, 10_000, forMs) },
        },
      ]
  const sleep: Timed[] = random.chance(0.5)
    ? [{ ...when, fault: { kind: 'freeze', host, forMs } }]
    : [...loss, { ...when, fault: { kind: 'stop', host, what: 'agent', forMs } }]
  const faults = leads ? [...loss, ...sleep.slice(-1)] : sleep
  return { faults, healAt: whole(random, 17_000, 21_000) }
}

/** A person changes a machine right before a process writes what it made of the machine before. */
const contest: Plot = (cast) => {
  const { random, vms } = cast
  const faults = some(random, 3, 6, (): Timed => {
    const vm = random.pick(vms)
    const by = random.pick([`@${vm}`, `@${vm}`, '@leader'])
    const when = { after: whole(random, 0, 3_500), by, key: `/virtualmachines/default/${vm}`, nth: 1 }
    const moment = random.chance(0.7)
      ? ({ op: 'put', phase: 'send' } as const)
      : ({ op: 'get', phase: 'answer' } as const)
    const does = random.pick(['start', 'stop', 'stop', 'delete', 'Restart', 'Move'] as const)
    return { ...when, ...moment, fault: { kind: 'user', vm, does } }
  })
  return { faults, healAt: 5_500 }
}

/** The plots with their shares of all schedules, in percent. */
const plots: readonly (readonly [number, Plot])[] = [
  [34, skirmish],
  [26, failover],
  [10, anything],
  [13, halves],
  [11, sleeper],
  [6, contest],
]

function plotOf(random: Random): Plot {
  let left = random.int(100)
  for (const [share, plot] of plots) {
    if (left < share) return plot
    left -= share
  }
  return anything
}

/** The schedules of `count` seeds from `first` on, one after another in one world. */
export function randomCourse(first: number, count: number): Course {
  const random = new Random(first).fork('world')
  const hosts = hostNames.slice(0, random.chance(0.85) ? 3 : random.pick([2, 4, 5]))
  const fencing = random.chance(0.85) ? 'guard' : random.pick(['none', 'command'] as const)
  const schedules: Schedule[] = []
  for (let seed = first; seed < first + count; seed += 1)
    schedules.push(randomSchedule(seed, hosts, schedules.at(-1)?.machines))
  return { seed: first, hosts, fencing, schedules }
}

/** The schedule of a seed, which may go on with the machines of the one before. */
function randomSchedule(
  seed: number,
  hosts: readonly string[],
  before: readonly MachineFacts[] = [],
): Schedule {
  const random = new Random(seed).fork('schedule')
  const plot = plotOf(random)
  // These disturb starts.
  const ofStarts = plot === skirmish || plot === sleeper
  const goesOn = before.length > 0 && random.chance(ofStarts ? 0.5 : 0.9)
  const machines = goesOn ? before : newMachines(random, before.length === 0 ? '' : `-${seed}`)
  const { faults, healAt } = plot({ random, hosts, vms: machines.map(({ name }) => name) })
  return { seed, machines, faults, healAt }
}

function newMachines(random: Random, suffix: string): MachineFacts[] {
  return ['one', 'two', 'three'].slice(0, 1 + random.int(2)).map((name) => ({
    name: `${name}${suffix}`,
    onHostLoss: random.chance(0.75) ? ('Failover' as const) : ('Manual' as const),
    // Later ones are spread over the hosts that are ready by then.
    ...(random.chance(0.4) && { at: whole(random, 200, 1_500) }),
  }))
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

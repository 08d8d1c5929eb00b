import { randomCourse } from './draw.ts'
import type { Timed } from './faults.ts'
import type { HostParts } from './parts.ts'
import type { Violation } from './rules.ts'
import { type Course, describe, play, type Schedule } from './schedule.ts'

/** So many schedules follow one another in a world: to begin one is a third of the work of a schedule alone. */
export const perWorld = 16

/** A course that breaks a rule, in its last schedule. */
export interface Broken {
  readonly course: Course
  readonly violation: Violation
}

export interface Found extends Broken {
  /** What happened, line by line. */
  readonly log: readonly string[]
}

export interface SearchOptions {
  readonly signal?: AbortSignal
  /** Told after each schedule. */
  readonly onPlayed?: () => void
}

/** As `firstBroken`, made as small as it gets, with all that happens in it. */
export async function search(
  first: number,
  count: number,
  parts: HostParts,
  options: SearchOptions = {},
): Promise<Found | undefined> {
  const broken = await firstBroken(first, count, parts, options)
  if (!broken) return undefined
  return quietly(async () => logged(await shrink(broken, parts), parts))
}

/** Plays the schedules of `count` seeds from `first` on, until a rule does not hold. */
export function firstBroken(
  first: number,
  count: number,
  parts: HostParts,
  { signal, onPlayed }: SearchOptions = {},
): Promise<Broken | undefined> {
  return quietly(async () => {
    for (let seed = first; seed < first + count; seed += perWorld) {
      const course = randomCourse(seed, Math.min(perWorld, first + count - seed))
      const broken = await broke(course, parts, () => {
        signal?.throwIfAborted()
        onPlayed?.()
      })
      if (broken) return broken
    }
    return undefined
  })
}

/** The course up to where it breaks a rule, if it does. */
async function broke(course: Course, parts: HostParts, onPlayed?: () => void): Promise<Broken | undefined> {
  const { violation, played } = await play(course, parts, { onPlayed })
  return violation && { course: { ...course, schedules: course.schedules.slice(0, played + 1) }, violation }
}

/** Simulated processes are refused a dozen things a second, and nobody reads from where in the program. */
async function quietly<T>(work: () => Promise<T>): Promise<T> {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return await work()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** At most so many courses are played to find a smaller one. */
const shrinkTries = 150

/** A smaller course that breaks the same rule: without schedules and faults that it does not need, and with shorter ones. */
async function shrink({ course, violation }: Broken, parts: HostParts): Promise<Course> {
  let best = course
  let tries = 0
  for (let smaller = true; smaller; ) {
    smaller = false
    for (const candidate of smallerCourses(best)) {
      if (tries++ >= shrinkTries) return best
      const broken = await broke(candidate, parts)
      if (broken?.violation.rule !== violation.rule) continue
      best = broken.course
      smaller = true
      break
    }
  }
  return best
}

/** The last schedule alone comes first: mostly it needs none of those before. */
function* smallerCourses(course: Course): Generator<Course> {
  const { schedules } = course
  if (schedules.length > 1) yield { ...course, schedules: schedules.slice(-1) }
  if (schedules.length > 2)
    for (const schedule of schedules.slice(0, -1))
      yield { ...course, schedules: schedules.filter((one) => one !== schedule) }
  for (const index of [...schedules.keys()].reverse())
    for (const smaller of smallerSchedules(schedules[index] as Schedule))
      yield { ...course, schedules: schedules.with(index, smaller) }
}

function* smallerSchedules(schedule: Schedule): Generator<Schedule> {
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

async function logged(course: Course, parts: HostParts): Promise<Found> {
  const log: string[] = []
  const { violation } = await play(course, parts, { tell: (line) => log.push(line), verbose: true })
  if (!violation)
    throw new Error(`the schedules from seed ${course.seed} on went another way the second time`)
  return { course, violation, log }
}

/** Everything that is needed to see it again. */
export function report({ course, violation, log }: Found): string {
  const shown = log.length > 120 ? ['…', ...log.slice(-120)] : log
  // Without those that it did not need the world is the same, and the numbers of the seeds are not.
  const count = (course.schedules.at(-1)?.seed ?? course.seed) - course.seed + 1
  return [
    `${violation.message} (${(violation.at / 1000).toFixed(3)} s)`,
    '',
    describe(course),
    '',
    ...shown,
    '',
    `again: plasmavmc simulate --seed ${course.seed} --schedules ${count}`,
    '',
  ].join('\n')
}

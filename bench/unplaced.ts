import { setTimeout as pause } from 'node:timers/promises'
import { runPlacement } from '../src/controllers/placement/start.ts'
import { systemClock } from '../src/lib/clock.ts'
import { silentLog } from '../src/lib/log.ts'
import type { KvObjects } from '../src/store/kv-objects.ts'
import {
  addHost,
  addLease,
  addMachine,
  addWaiting,
  copiesOf,
  each,
  hostMemory,
  hosts,
  many,
  memoryObjects,
} from './cluster.ts'
import { type Figure, median, ms, repeat } from './stats.ts'

const count = 10_000
const quietMs = 20_000
/** Each machine that is placed changes the numbers of why the others are not; they are told of within this time. */
const retoldMs = 12_000

/** Full hosts: what is free on each is less than what each of the unplaceable machines wants. */
async function fill(objects: KvObjects): Promise<void> {
  for (let i = 0; i < hosts; i += 1) {
    await addHost(objects, `h${i}`)
    await addLease(objects, `h${i}`)
  }
  await many(hosts * each, (i) => addMachine(objects, i, `h${i % hosts}`))
  await many(count, (i) => addWaiting(objects, hosts * each + i, `${hostMemory - 2 * each + 1}Gi`))
}

/** What machines that no host takes cost the leader, while nothing changes and with each that can be placed; in a store in memory. */
export async function unplaced(): Promise<Figure[]> {
  const objects = memoryObjects()
  await fill(objects)
  const stopping = new AbortController()
  const copies = copiesOf(objects)
  const told = new Set<string>()
  const all = Promise.withResolvers<void>()
  const placed = new Map<string, () => void>()
  let rewritten = 0
  copies.vms.onChange((key, vm) => {
    if (vm?.status?.reason === 'Unschedulable') {
      rewritten += told.has(key) ? 1 : 0
      if (told.add(key).size === count) all.resolve()
    }
    if (vm?.status?.hostName !== undefined) placed.get(key)?.()
  })
  let passes = 0
  const began = performance.now()
  const loops = [
    runPlacement(
      {
        ...{ objects, ...copies, clock: systemClock, log: silentLog, tell: () => {} },
        onPass: () => {
          passes += 1
        },
      },
      stopping.signal,
    ),
    ...Object.values(copies).map((copy) => copy.run(stopping.signal)),
  ]
  await all.promise
  const first = performance.now() - began
  // What its own writes led to is over.
  await pause(5_000)
  passes = 0
  const before = process.cpuUsage()
  await pause(quietMs)
  const { user, system } = process.cpuUsage(before)
  const [quietCpu, quietPasses] = [(user + system) / 1000, passes]
  const delays = await repeat(10, async (i) => {
    const index = hosts * each + count + i * 10
    const done = new Promise<void>((resolve) => placed.set(`default/m${index}`, resolve))
    const at = performance.now()
    await addWaiting(objects, index)
    await done
    return performance.now() - at
  })
  await pause(retoldMs)
  stopping.abort()
  await Promise.all(loops)
  const words = `${count.toLocaleString('en')} machines that no host of ${hosts} takes`
  return [
    { what: `${words}: all told why`, value: ms(first), goal: '' },
    {
      what: `${words}: processor time in 10 s while nothing changes`,
      value: `${ms((quietCpu * 10_000) / quietMs)} (${quietPasses} passes in ${quietMs / 1000} s)`,
      goal: '≤ 100 ms',
    },
    {
      what: `${words}: one more that fits, until it is placed`,
      value: `p50 ${ms(median(delays))}`,
      goal: '',
    },
    {
      what: `${words}: their statuses written again because of ten that fit`,
      value: `${rewritten}`,
      goal: '≤ 400',
    },
  ]
}

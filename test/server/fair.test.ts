import { expect, it } from 'vitest'
import { defaultFairLimits, type FairLimits, FairQueue, type Leave } from '../../src/server/fair.ts'
import { isExempt } from '../../src/server/seating.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

function queue(change: Partial<FairLimits> = {}) {
  const clock = new VirtualClock()
  const limits = { ...defaultFairLimits, seats: 4, seatsOfOne: 3, waiting: 100, waitingOfOne: 10, ...change }
  return { clock, fair: new FairQueue(limits, clock) }
}

/** Lets promises that can settle do so. */
const settle = () => new Promise(setImmediate)

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'in',
    (error: { reason?: string }) => error.reason,
  )

it('gives free seats at once, to one user not all of them', async () => {
  const { fair } = queue()
  await Promise.all(['a', 'a', 'a', 'b'].map((user) => fair.enter(user)))
  expect(fair.load).toEqual({ seated: 4, waiting: 0 })
})

it('serves users in turn, however many requests one has', async () => {
  const { fair } = queue({ seats: 1, seatsOfOne: 1, waitingOfOne: 50 })
  const order: string[] = []
  const request = async (user: string) => {
    const leave = await fair.enter(user)
    order.push(user)
    await settle()
    leave()
  }
  const all = [...Array<string>(30).fill('noisy'), 'b', 'c', 'b', 'c'].map(request)
  await Promise.all(all)
  expect(order.slice(0, 7).sort()).toEqual(['b', 'b', 'c', 'c', 'noisy', 'noisy', 'noisy'])
  expect(order).toHaveLength(34)
  expect(fair.load).toEqual({ seated: 0, waiting: 0 })
})

it('refuses what is one too many of one user, and no other user’s', async () => {
  const { fair } = queue()
  const waiting = Array.from({ length: 3 + 10 }, () => fair.enter('noisy'))
  await expect(fair.enter('noisy')).rejects.toMatchObject({
    ...{ reason: 'TooManyRequests', details: { retryAfterSeconds: 1 } },
    message: 'too many requests of noisy wait: try again later',
  })
  expect(await codeOf(fair.enter('quiet'))).toBe('in')
  expect(fair.load).toEqual({ seated: 4, waiting: 10 })
  for (const one of waiting) (await one)()
})

it('refuses all when too many wait in all', async () => {
  const { fair } = queue({ waiting: 2, seats: 1 })
  const leaves = ['a', 'b', 'c'].map((user) => fair.enter(user))
  expect(await codeOf(fair.enter('d'))).toBe('TooManyRequests')
  for (const leave of leaves) (await leave)()
  expect(await codeOf(fair.enter('d'))).toBe('in')
})

it('lets nobody wait for ever, and gives the place of one that is gone to the next', async () => {
  const { fair, clock } = queue({ seats: 1 })
  const first = await fair.enter('a')
  const gone = new AbortController()
  const leaving = codeOf(fair.enter('b', () => gone.signal))
  const waiting = codeOf(fair.enter('c'))
  gone.abort({ reason: 'Timeout' })
  expect(await leaving).toBe('Timeout')
  expect(await codeOf(fair.enter('d', () => gone.signal))).toBe('Timeout')
  await clock.advance(15_000)
  expect(await waiting).toBe('TooManyRequests')
  expect(fair.load).toEqual({ seated: 1, waiting: 0 })
  const last = fair.enter('e')
  first()
  first()
  expect(await codeOf(last)).toBe('in')
  expect(fair.load).toEqual({ seated: 1, waiting: 0 })
})

it('has a rate for each user', async () => {
  const { fair, clock } = queue({ ratePerSecond: 10, burst: 20 })
  const spent = (user: string) => {
    for (let i = 0; ; i += 1)
      try {
        fair.spend(user)
      } catch {
        return i
      }
  }
  expect([spent('a'), spent('b'), spent('a')]).toEqual([20, 20, 0])
  await clock.advance(1_000)
  expect(spent('a')).toBe(10)
  await clock.advance(60_000)
  expect(spent('a')).toBe(20)
})

it('counts watches of a user without a seat', () => {
  const { fair } = queue({ watchesOfOne: 2 })
  let stopped = 0
  const stop = () => {
    stopped += 1
  }
  const ends: Leave[] = [fair.watch('a', stop), fair.watch('a', stop)]
  expect(() => fair.watch('a', stop)).toThrow(/2 watches/)
  fair.watch('b', stop)
  expect([stopped, fair.load.seated]).toEqual([1, 0])
  ends[0]?.()
  ends[0]?.()
  fair.watch('a', stop)
  expect(() => fair.watch('a', stop)).toThrow(/2 watches/)
})

it.each([
  ['watches', (fair: FairQueue, user: string) => fair.watch(user, () => {})],
  ['consoles', (fair: FairQueue, user: string) => fair.console(user)],
] as const)('holds only so many %s open, of one user and in all, apart from the other kind', (what, hold) => {
  const { fair } = queue({ [what]: 4, [`${what}OfOne`]: 3 })
  const ends = ['a', 'a', 'a'].map((user) => hold(fair, user))
  expect(() => hold(fair, 'a')).toThrow(/^a has 3 .*, which is as many as one may have/)
  ends.push(hold(fair, 'b'))
  expect(() => hold(fair, 'b')).toThrow(/^all 4 .* of this server are taken/)
  expect(() => hold(fair, 'a')).toThrow(/^a has 3/)
  const other = what === 'watches' ? fair.console('a') : fair.watch('a', () => {})
  ends[0]?.()
  ends[0]?.()
  hold(fair, 'b')
  expect(() => hold(fair, 'b')).toThrow(/^all 4/)
  other()
})

it('exempts the leases of hosts, and nothing else', () => {
  const lease = { group: 'coordination.k8s.io', resource: 'leases', namespace: 'plasmavmc-system', name: 'h' }
  expect(isExempt({ target: lease })).toBe(true)
  for (const target of [
    { ...lease, namespace: 'default' },
    { ...lease, resource: 'events' },
    { ...lease, group: '' },
    { group: 'coordination.k8s.io', resource: 'leases' },
    { path: '/metrics' },
  ])
    expect(isExempt({ target })).toBe(false)
})

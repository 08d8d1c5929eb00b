import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { ClusterView, GuardDeps, GuardReport } from '../../../src/controllers/guard/ports.ts'
import { Guard } from '../../../src/controllers/guard/run.ts'
import type { StoreWord } from '../../../src/controllers/guard/state.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { fencedHolder, leaseAnnotations, leaseFacts } from '../../../src/resources/host-lease.ts'
import { Lease } from '../../../src/resources/kinds.ts'
import { defaultTerms, LeaseContender, takeOver } from '../../../src/runtime/lease.ts'
import { ApiError } from '../../../src/store/errors.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'

const terms = defaultTerms
const ref = { namespace: 'plasmavmc-system', name: 'host-a' }
const all = new Map([
  ['a', 'a:1'],
  ['b', 'b:1'],
  ['c', 'c:1'],
])

let clock: VirtualClock
let objects: ObjectStore

beforeEach(() => {
  clock = new VirtualClock(Date.parse('2026-01-01T00:00:00Z'))
  let uids = 0
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => `uid-${uids++}` })
})

/** A guard in a world that a test changes. */
function start(options: { inherited?: GuardReport; view?: ClusterView; up?: boolean } = {}) {
  const world = {
    view: options.view ?? { members: all },
    /** Whether the store answers. */
    up: options.up ?? true,
    others: {} as Record<string, StoreWord>,
    /** Failover-enabled machines, and whether SIGKILL does anything to them. */
    machines: 0,
    stuck: false,
    kills: 0,
    agent: true,
    reports: [] as GuardReport[],
    pets: 0,
    ended: false,
    stop: new AbortController(),
  }
  const cut: ObjectStore = new Proxy(objects, {
    get: (target, name) => {
      const value = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return async (...args: unknown[]) => {
        if (!world.up) throw new ApiError('ServiceUnavailable', 'etcd is away')
        return value.apply(target, args)
      }
    },
  })
  const deps: GuardDeps = {
    ...{ host: 'a', identity: 'a/1', terms, clock, log: silentLog },
    facts: { stopMs: 2_500, selfFence: 'guard', peer: 'a:1', bootId: 'boot' },
    inherited: options.inherited,
    contender: (hooks) => new LeaseContender({ objects: cut, clock, ref, identity: 'a/1', terms, ...hooks }),
    look: async () => {
      if (!world.up) throw new Error('etcd is away')
      return world.view
    },
    ask: async (host) => {
      const word = world.others[host]
      return word && { word, askedAt: clock.elapsed() }
    },
    machines: {
      stop: async () => {
        if (world.machines > 0) world.kills += 1
        if (!world.stuck) world.machines = 0
        return { left: world.machines, ...(world.machines > 0 && { why: 'web lives' }) }
      },
      running: async () => world.machines,
    },
    publish: (report) => void world.reports.push(report),
    agentLives: () => world.agent,
    pet: () => {
      world.pets += 1
    },
  }
  const guard = new Guard(deps)
  const running = guard.run(world.stop.signal).then(() => {
    world.ended = true
  })
  onTestFinished(async () => {
    world.machines = 0
    world.stop.abort()
    await clock.advance(10_000)
    await running
  })
  return { guard, world, last: () => world.reports.at(-1)!, lease: () => objects.get(Lease, ref) }
}

const fence = async () =>
  takeOver(await objects.get(Lease, ref), { objects, clock, terms, silentMs: 10_000, neededMs: 10_000 })

describe('a guard', () => {
  test('renews, tells the agent, and says in the lease what it promises', async () => {
    const { last, lease, world } = start()
    await clock.advance(20_000)
    expect(last()).toMatchObject({ held: true, epoch: 1, deadlineMs: 6_000, fencing: false })
    expect(clock.elapsed() - last().sentAt!).toBeLessThan(3_500)
    expect(leaseFacts(await lease())).toEqual({
      ...{ deadlineMs: 6_000, stopMs: 2_500, selfFence: 'guard', peer: 'a:1', members: ['a', 'b', 'c'] },
      ...{ agent: 'alive', bootId: 'boot' },
    })
    expect(world.pets).toBeGreaterThan(15)
  })

  test('that takes a restored store as it is says for a while that the one before is lost, and consents to nothing', async () => {
    const { guard } = start()
    await clock.advance(6_000)
    guard.storeReplaced()
    await clock.advance(terms.deadlineMs + terms.renewMs - 100)
    expect(await guard.saysLost()).toMatchObject({ word: 'lost' })
    await clock.advance(100)
    expect(await guard.saysLost()).toMatchObject({ word: 'have' })
    expect(guard.consents('b').consent).toBe(false)
    await clock.advance(5_000)
    expect(guard.consents('b').consent).toBe(true)
  })

  test('renews as soon as it has read the store, not at its next try', async () => {
    const { last, lease } = start()
    await clock.advance(20)
    expect(last()).toMatchObject({ held: true, standing: 'held' })
    expect(last()).not.toHaveProperty('waits')
    expect((await lease()).spec.holderIdentity).toBe('a/1')
  })

  test('renews at once when its agent is back, and not because it is silent', async () => {
    const { last, lease, world } = start()
    await clock.advance(5_000)
    world.agent = false
    await clock.advance(3_100)
    expect(leaseFacts(await lease()).agent).toBe('silent')
    const { sentAt } = last()
    expect(last()).toMatchObject({ held: true, agent: 'silent' })
    world.agent = true
    await clock.advance(300)
    expect(leaseFacts(await lease()).agent).toBe('alive')
    expect(last()).toMatchObject({ held: true, agent: 'alive' })
    expect(last().sentAt! - sentAt!).toBeLessThan(3_000)
    const again = last().sentAt
    await clock.advance(2_500)
    expect(last().sentAt).toBe(again)
  })

  test('says what it waits for: what is in the way of the end of machines, and why the store did not answer', async () => {
    const { last, world } = start()
    await clock.advance(5_000)
    Object.assign(world, { up: false, machines: 1, stuck: true })
    await clock.advance(8_000)
    expect(last()).toMatchObject({
      ...{ held: false, standing: 'stopping' },
      waits: expect.stringMatching(/2\.5 s are promised; web lives; .*failed first: etcd is away$/),
    })
    world.stuck = false
    await clock.advance(2_000)
    expect(last()).toMatchObject({
      standing: 'stopped',
      waits: 'it renews the lease once the store answers; the try that failed first: etcd is away',
    })
    world.up = true
    await clock.advance(3_000)
    expect(last()).toMatchObject({ held: true, standing: 'held' })
    expect(last()).not.toHaveProperty('waits')
  })

  test('cut off alone stops its machines within a second of the deadline, and does not try before they are gone', async () => {
    const { last, lease, world } = start()
    await clock.advance(5_000)
    Object.assign(world, { up: false, machines: 2, stuck: true })
    const sentAt = last().sentAt!
    await clock.advance(sentAt + 6_000 - clock.elapsed() - 1)
    expect(world.kills).toBe(0)
    await clock.advance(1_000)
    expect(world.kills).toBeGreaterThan(0)
    const { resourceVersion } = (await lease()).metadata
    const pets = world.pets
    world.up = true
    await clock.advance(20_000)
    expect((await lease()).metadata.resourceVersion).toBe(resourceVersion)
    expect(last()).toMatchObject({ held: false, fencing: true })
    expect(world.pets).toBe(pets)
    world.stuck = false
    await clock.advance(3_000)
    expect(last()).toMatchObject({ held: true, epoch: 1, fencing: false })
    expect(world.pets).toBeGreaterThan(pets)
  })

  test('holds while another has lost the store too, and stops once that one has had it back for two seconds', async () => {
    const { last, world } = start()
    await clock.advance(5_000)
    Object.assign(world, { up: false, machines: 1, others: { b: 'lost' } })
    await clock.advance(60_000)
    expect(world.kills).toBe(0)
    expect(last()).toMatchObject({
      held: false,
      fencing: false,
      why: expect.stringContaining('have lost it too'),
    })
    expect(last().stopAt).toBeGreaterThan(clock.elapsed())
    world.others = { b: 'have' }
    await clock.advance(1_000)
    expect(world.machines).toBe(1)
    await clock.advance(2_000)
    expect(world.machines).toBe(0)
  })

  test('stops machines at once when its lease was taken, and takes it back under that epoch once they are gone', async () => {
    const { last, lease, world } = start()
    await clock.advance(5_000)
    Object.assign(world, { machines: 1, stuck: true })
    await fence()
    await clock.advance(4_000)
    expect(world.kills).toBeGreaterThan(0)
    expect((await lease()).spec.holderIdentity).toBe(fencedHolder)
    expect(last()).toMatchObject({ held: false, why: 'the lease of this host was taken: fenced' })
    world.stuck = false
    await clock.advance(3_000)
    expect((await lease()).spec).toMatchObject({ holderIdentity: 'a/1', leaseTransitions: 2 })
    expect(last()).toMatchObject({ held: true, epoch: 2 })
  })

  test('in maintenance stops nothing while it is cut off; the lease says so until it renews without it', async () => {
    const { last, lease, world } = start()
    world.view = { members: all, maintenance: '2026-01-01T01:00:00Z' }
    await clock.advance(10_000)
    expect(leaseFacts(await lease()).maintenance).toBe('2026-01-01T01:00:00Z')
    Object.assign(world, { up: false, machines: 1 })
    await clock.advance(60_000)
    expect(world.kills).toBe(0)
    expect(last()).toMatchObject({ held: false, fencing: false })
    expect(last().stopAt).toBeUndefined()
    world.view = { members: all }
    world.up = true
    await clock.advance(10_000)
    expect(leaseFacts(await lease()).maintenance).toBeUndefined()
    world.up = false
    await clock.advance(10_000)
    expect(world.machines).toBe(0)
  })

  test('does not touch the lease before the name is its own', async () => {
    const { last, lease, world } = start({ view: { members: all, unclaimed: 'another host has it' } })
    await clock.advance(30_000)
    await expect(lease()).rejects.toThrow('not found')
    expect(last()).toMatchObject({ held: false })
    world.view = { members: all }
    await clock.advance(5_000)
    expect(last()).toMatchObject({ held: true })
  })
})

describe('the guard after another', () => {
  const report = (more: Partial<GuardReport> = {}): GuardReport => ({
    ...{ epoch: 4, held: true, sentAt: 0, deadlineMs: 6_000, stopAt: 6_000, fencing: false, why: '' },
    promises: [{ members: ['a', 'b', 'c'], deadlineMs: 6_000, suspended: false }],
    ...more,
  })

  test('goes on from its last renewal', async () => {
    const { last, world } = start({ inherited: report() })
    Object.assign(world, { up: false, machines: 1 })
    await clock.advance(5_900)
    expect(last()).toMatchObject({ held: true, epoch: 4 })
    expect(world.kills).toBe(0)
    await clock.advance(1_000)
    expect(world.kills).toBe(1)
  })

  test('in an outage goes on holding, and asks those that the one before it knew', async () => {
    await clock.advance(20_000)
    const holding = { held: false, sentAt: 0, stopAt: 21_500, peers: { b: 'b:1', c: 'c:1' } }
    const { last, world } = start({ inherited: report(holding), up: false })
    Object.assign(world, { machines: 1, others: { b: 'lost' } })
    await clock.advance(30_000)
    expect(world.kills).toBe(0)
    expect(last()).toMatchObject({ held: false, fencing: false, peers: { b: 'b:1', c: 'c:1' } })
    world.others = {}
    await clock.advance(3_000)
    expect(world.kills).toBe(1)
  })

  test('of one that held its lease asks once it can not read the store', async () => {
    const { world } = start({ inherited: report({ peers: { b: 'b:1' } }), up: false })
    Object.assign(world, { machines: 1, others: { b: 'lost' } })
    await clock.advance(30_000)
    expect(world.kills).toBe(0)
  })

  test('says nothing for 5 s, neither way', async () => {
    const { guard, world } = start({ inherited: report() })
    await clock.advance(1_000)
    expect(guard.consents('b').consent).toBe(false)
    await clock.advance(4_500)
    expect(guard.consents('b').consent).toBe(true)
    Object.assign(world, { up: false })
    await clock.advance(4_500)
    expect(await guard.saysLost()).toMatchObject({ word: 'undecided' })
    await clock.advance(1_000)
    expect(await guard.saysLost()).toMatchObject({ word: 'lost' })
    expect(guard.consents('b').consent).toBe(false)
  })

  test('after a boot waits until its lease was silent for as long as it promised', async () => {
    const annotations = leaseAnnotations({
      ...{
        deadlineMs: 6_000,
        stopMs: 2_500,
        selfFence: 'guard',
        members: ['a'],
        agent: 'alive',
        bootId: 'old',
      },
    })
    await objects.create(Lease, {
      ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { ...ref, annotations } },
      spec: { holderIdentity: 'a/1', leaseTransitions: 3 },
    })
    const { last } = start()
    await clock.advance(8_000)
    expect(last()).toMatchObject({
      held: false,
      waits: expect.stringContaining('a copy of this host may run'),
    })
    await clock.advance(4_000)
    expect(last()).toMatchObject({ held: true, epoch: 3 })
  })
})

describe('told to stop', () => {
  test('it ends only once no machine needs it, and gives the lease up', async () => {
    const { lease, last, world } = start()
    await clock.advance(5_000)
    world.machines = 1
    world.stop.abort()
    await clock.advance(60_000)
    expect(world.ended).toBe(false)
    expect(last()).toMatchObject({ held: true })
    world.machines = 0
    await clock.advance(2_000)
    expect(world.ended).toBe(true)
    expect(last()).toMatchObject({ held: false })
    expect((await lease()).spec.holderIdentity).toBeUndefined()
  })

  test('the agent is told before the last look: what it starts until then is seen', async () => {
    const { world, last } = start()
    await clock.advance(5_000)
    const told: boolean[] = []
    Object.defineProperty(world, 'machines', {
      get: () => {
        told.push(last().held)
        return 0
      },
      set: () => {},
    })
    world.stop.abort()
    await clock.advance(2_000)
    expect(told.at(-1)).toBe(false)
  })
})

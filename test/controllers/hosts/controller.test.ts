import { beforeEach, describe, expect, test } from 'vitest'
import type { Votes } from '../../../src/controllers/hosts/types.ts'
import type { FenceOutcome } from '../../../src/host/fence-command.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import { Host, Lease } from '../../../src/resources/kinds.ts'
import { parse } from '../../../src/resources/parse.ts'
import { VirtualMachine, vmFinalizer, vmStatusOf } from '../../../src/resources/vm.ts'
import { ApiError } from '../../../src/store/errors.ts'
import { evidence, lease, machine } from './fixture.ts'
import { Lab } from './lab.ts'

let lab: Lab

const guard = { mode: 'guard' }
const agree: Votes = { consents: ['b', 'c'], refusals: [] }
const failover = { recovery: { onHostLoss: 'Failover' } }
const broken = () => new ApiError('ServiceUnavailable', 'the store gave no answer')

beforeEach(() => {
  lab = new Lab()
})

/** Whoever has no host, or is marked. */
const where = async (name: string) => {
  const { status } = await lab.vm(name)
  return `${status?.phase}/${status?.reason} on ${status?.hostName ?? 'nothing'}`
}

describe('a host that falls silent', () => {
  test('is fenced, and its machines are taken, those with the highest priority first', async () => {
    await lab.hosts(guard)
    await lab.add(machine('low'))
    await lab.add(machine('high', { spec: { ...failover, priority: 7 } }))
    await lab.add(machine('waits', { spec: { recovery: { onHostLoss: 'Manual' } } }))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    expect(await lab.condition('a', 'Schedulable')).toBe('True/Schedulable')
    lab.alive.delete('a')
    await lab.pass(20)
    expect(await lab.condition('a', 'Ready')).toBe('Unknown/LeaseExpired')
    expect(await lab.condition('a', 'Fenced')).toBe('True/Fenced')
    expect(await lab.condition('a', 'Schedulable')).toBe('False/LeaseExpired')
    expect((await lab.lease('a')).spec).toMatchObject({ holderIdentity: 'fenced', leaseTransitions: 4 })
    expect([await where('low'), await where('high'), await where('waits')]).toEqual([
      'Pending/HostLost on nothing',
      'Pending/HostLost on nothing',
      'Unknown/HostLost on a',
    ])
    const [stored] = await lab.evidence()
    expect(stored?.metadata.name).toBe('a-4')
    expect(stored?.spec).toMatchObject({ proof: 'Guard', by: 'b', votes: ['b', 'c'], lease: { epoch: 3 } })
    expect(stored?.spec.silentMs).toBeGreaterThanOrEqual(10_000)
    expect(parse(FenceEvidence, stored)).toMatchObject({ ok: true })
    const left = lab.told.filter((one) => one.startsWith('VirtualMachine')).map((one) => one.split(' ')[1])
    expect(left.slice(-2)).toEqual(['high:', 'low:'])
    expect(lab.told).toContain('Host a: LeaseExpired')
    expect(lab.told.filter((one) => one === 'Host a: Fenced')).toHaveLength(1)
  })

  test('each machine is read after the lease and its evidence were', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m'))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(20)
    const said = lab.calls.map(({ call, kind, name }) => `${call} ${kind} ${name}`)
    const taken = said.lastIndexOf('updateStatus VirtualMachine m')
    const order = [
      'create FenceEvidence a-4',
      'get FenceEvidence a-4',
      'get Lease host-a',
      'get VirtualMachine m',
    ]
    const places = order.map((one) => said.lastIndexOf(one, taken))
    expect(places).toEqual([...places].sort((x, y) => x - y))
    expect(places.every((place) => place >= 0 && place < taken)).toBe(true)
  })

  test('is let be once it is back: what was marked is for its agent to say', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m'))
    lab.begin()
    lab.lead({ votes: async () => ({ consents: [], refusals: [{ host: 'b', why: 'no' }] }) })
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(15)
    expect(await where('m')).toBe('Unknown/HostLost on a')
    expect(await lab.condition('a', 'Fenced')).toBe('Unknown/VoteRefused')
    const marked = (await lab.vm('m')).metadata.resourceVersion
    lab.alive.add('a')
    await lab.pass(6)
    expect(await lab.condition('a', 'Fenced')).toBe('False/LeaseRenewed')
    expect((await lab.vm('m')).metadata.resourceVersion).toBe(marked)
    expect(lab.told).toContain('Host a: HostBack')
    expect(await lab.evidence()).toEqual([])
  })

  test('and writes over a mark while it goes down is marked again, at most each ten seconds', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m', { spec: { recovery: { onHostLoss: 'Manual' } } }))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(15)
    expect(await where('m')).toBe('Unknown/HostLost on a')
    const says = async () => {
      const vm = await lab.vm('m')
      const status = { ...vm.status, phase: 'Pending', reason: 'LeaseLost' } as typeof vm.status
      await lab.objects.updateStatus(VirtualMachine, { ...vm, ...(status && { status }) })
    }
    await says()
    await lab.pass(8)
    expect(await where('m')).toBe('Unknown/HostLost on a')
    await says()
    await lab.pass(4)
    expect(await where('m')).toBe('Pending/LeaseLost on a')
    await lab.pass(8)
    expect(await where('m')).toBe('Unknown/HostLost on a')
  })

  test('is not lost by a clock that jumps', async () => {
    await lab.hosts(guard)
    lab.begin()
    lab.lead()
    for (let i = 0; i < 10; i += 1) {
      lab.clock.jumped += i % 2 === 0 ? 3_600_000 : -7_200_000
      await lab.pass(1)
    }
    // Silent for six seconds, in which the wall clock makes seventeen.
    lab.alive.delete('a')
    for (let i = 0; i < 26; i += 1) {
      if (i === 6) lab.alive.add('a')
      lab.clock.jumped += 1_900
      await lab.pass(1)
    }
    expect(await lab.condition('a', 'Fenced')).toBe('False/LeaseRenewed')
    expect(lab.told).toEqual([])
  })

  test('nor by an outage of the store', async () => {
    await lab.hosts(guard)
    lab.begin()
    let asked = 0
    lab.lead({
      votes: async () => {
        asked += 1
        return agree
      },
    })
    await lab.pass(6)
    lab.trouble = broken
    lab.alive.clear()
    await lab.pass(40)
    lab.trouble = () => undefined
    await lab.pass(5)
    for (const name of ['a', 'b', 'c']) lab.alive.add(name)
    await lab.pass(20)
    expect(asked).toBe(0)
    expect(await lab.condition('a', 'Fenced')).toBe('False/LeaseRenewed')
  })
})

describe('the brake', () => {
  test('holds all while two of three are silent, says so on each, and goes on by itself', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m'))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(2)
    lab.alive.delete('c')
    await lab.pass(60)
    expect([await lab.condition('a', 'Fenced'), await lab.condition('c', 'Fenced')]).toEqual([
      'Unknown/BrakeHeld',
      'Unknown/BrakeHeld',
    ])
    expect(lab.told).toEqual(expect.arrayContaining(['Host a: BrakeHeld', 'Host c: BrakeHeld']))
    expect((await lab.lease('a')).spec.holderIdentity).toBe('a')
    lab.alive.add('c')
    await lab.pass(15)
    expect(await where('m')).toBe('Pending/HostLost on nothing')
    expect(await lab.condition('c', 'Fenced')).toBe('False/LeaseRenewed')
  })
})

describe('what fails is tried again', () => {
  test('votes, for ever, at most 30 s apart', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m'))
    const asked: number[] = []
    let answer: Votes = { consents: ['b'], refusals: [{ host: 'c', why: 'it has lost the store too' }] }
    lab.begin()
    lab.lead({
      votes: async () => {
        asked.push(lab.clock.elapsed())
        return answer
      },
    })
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(300)
    const gaps = asked.slice(1).map((at, i) => at - asked[i]!)
    expect(gaps.length).toBeGreaterThan(8)
    expect(gaps[0]).toBeLessThan(3_000)
    expect(Math.max(...gaps)).toBeGreaterThan(25_000)
    expect(Math.max(...gaps)).toBeLessThanOrEqual(31_000)
    const words = (await lab.host('a')).status?.conditions.find(({ type }) => type === 'Fenced')?.message
    expect(words).toContain('c: it has lost the store too')
    answer = agree
    await lab.pass(35)
    expect(await where('m')).toBe('Pending/HostLost on nothing')
  })

  test('votes that hang', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m'))
    let hangs = true
    lab.begin()
    lab.lead({ votes: () => (hangs ? new Promise(() => {}) : Promise.resolve(agree)) })
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(60)
    hangs = false
    await lab.pass(40)
    expect(await where('m')).toBe('Pending/HostLost on nothing')
  })

  test('a command, that lied first', async () => {
    await lab.hosts({ mode: 'command', command: ['fence_x', '--ip=1'], timeoutSeconds: 7 })
    await lab.add(machine('m', { status: { onHostLoss: 'Manual' } }))
    const ran: unknown[] = []
    let outcome: FenceOutcome = { state: 'failed', reason: 'LiedOff', why: 'still on' }
    lab.begin()
    lab.lead({
      runCommand: async ({ command, timeoutMs }) => {
        ran.push([command, timeoutMs])
        return outcome
      },
    })
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(20)
    expect(await lab.condition('a', 'Fenced')).toBe('Unknown/LiedOff')
    expect(ran[0]).toEqual([['fence_x', '--ip=1'], 7_000])
    expect(await where('m')).toBe('Unknown/HostLost on a')
    outcome = { state: 'off', seen: 'off: exit code 0; status: exit code 2' }
    await lab.pass(35)
    expect(await where('m')).toBe('Pending/HostLost on nothing')
    expect((await lab.evidence())[0]?.spec).toMatchObject({
      proof: 'Command',
      seen: expect.stringContaining('exit code 2'),
    })
  })

  test('a store that fails and conflicts', async () => {
    await lab.hosts(guard)
    for (const name of ['m', 'n', 'o', 'p']) await lab.add(machine(name))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    lab.alive.delete('a')
    let seed = 1
    lab.trouble = ({ call, kind }) => {
      if (call === 'list' && kind === 'Lease') return undefined
      seed = (seed * 48_271) % 2_147_483_647
      if (seed % 3 === 0) return broken()
      return seed % 3 === 1 && call.startsWith('update')
        ? new ApiError('Conflict', 'somebody was faster')
        : undefined
    }
    await lab.pass(400)
    expect(await Promise.all(['m', 'n', 'o', 'p'].map(where))).toEqual(
      Array(4).fill('Pending/HostLost on nothing'),
    )
  })
})

describe('another leader', () => {
  test('stores what the first had seen when it took the lease, and goes on without a second wait', async () => {
    await lab.hosts(guard)
    await lab.add(machine('m'))
    lab.begin()
    const end = lab.lead()
    await lab.pass(5)
    lab.alive.delete('a')
    lab.trouble = ({ call, kind }) => (call === 'create' && kind === 'FenceEvidence' ? broken() : undefined)
    await lab.pass(15)
    expect((await lab.lease('a')).spec.holderIdentity).toBe('fenced')
    expect(await lab.evidence()).toEqual([])
    expect(await where('m')).toBe('Unknown/HostLost on a')
    await end()
    lab.trouble = () => undefined
    lab.lead({}, 'c')
    await lab.pass(3)
    expect((await lab.evidence())[0]?.spec).toMatchObject({ by: 'b', votes: ['b', 'c'], epoch: 4 })
    expect(await where('m')).toBe('Pending/HostLost on nothing')
  })
})

describe("a person's word", () => {
  const claim = async (by = 'alice') => {
    const { leaseTransitions: epoch = 0 } = (await lab.lease('a')).spec
    const resourceVersion = (await lab.lease('a')).metadata.resourceVersion ?? ''
    const { uid: _, ...metadata } = evidence({ epoch: epoch + 1 }).metadata
    const { spec } = evidence({ epoch: epoch + 1, proof: 'Operator', by, lease: { epoch, resourceVersion } })
    return lab.objects.create(FenceEvidence, { ...evidence(), metadata, spec })
  }

  test('takes a host that nothing else fences', async () => {
    await lab.hosts({ mode: 'none' })
    await lab.add(machine('m', { status: { onHostLoss: 'Manual' } }))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    lab.alive.delete('a')
    await lab.pass(20)
    expect(await lab.condition('a', 'Fenced')).toBe('Unknown/NoFencing')
    const said = await claim()
    await lab.pass(5)
    expect(await lab.condition('a', 'Fenced')).toBe('True/Fenced')
    expect(await lab.evidence()).toEqual([said])
    expect((await lab.vm('m')).status).toMatchObject({ phase: 'Pending', evidence: 'a-4' })
  })

  test('is refused while the host renews its lease, and does not lie in wait for the day when it does not', async () => {
    await lab.hosts({ mode: 'none' })
    await lab.add(machine('m'))
    lab.begin()
    lab.lead()
    await lab.pass(5)
    await claim()
    await lab.pass(6)
    expect(await lab.evidence()).toEqual([])
    expect(lab.told).toEqual(['Host a: ClaimRefused'])
    lab.alive.delete('a')
    await lab.pass(30)
    expect((await lab.lease('a')).spec.holderIdentity).toBe('a')
    expect(await where('m')).toBe('Unknown/HostLost on a')
  })
})

test('an agent that is not as silent as is said has its word about a deletion for ten seconds at a time', async () => {
  await lab.hosts(guard)
  const silent = await lab.lease('a')
  const { annotations } = lease('a', {}, {}, { agent: 'silent' }).metadata
  await lab.objects.update(Lease, {
    ...silent,
    metadata: { ...silent.metadata, ...(annotations && { annotations }) },
  })
  await lab.add(machine('m', { metadata: { finalizers: [vmFinalizer] } }))
  await lab.objects.delete(VirtualMachine, { namespace: 'default', name: 'm' })
  lab.begin()
  lab.lead()
  await lab.pass(10)
  expect(await where('m')).toBe('Terminating/AgentSilent on a')
  const before = lab.told.length
  for (let i = 0; i < 30; i += 1) {
    const vm = await lab.vm('m')
    const status = { ...vmStatusOf(vm), phase: 'Terminating', reason: 'Stopping', message: `${i}` } as const
    await lab.objects.updateStatus(VirtualMachine, { ...vm, status })
    await lab.pass(1)
  }
  const marks = lab.told.slice(before).filter((one) => one === 'VirtualMachine m: AgentSilent')
  expect(marks.length).toBeGreaterThan(0)
  expect(marks.length).toBeLessThanOrEqual(4)
})

test('the lease of a Host that was deleted goes when it is silent', async () => {
  await lab.hosts(guard)
  lab.begin()
  lab.lead()
  await lab.pass(5)
  lab.alive.delete('a')
  await lab.objects.delete(Host, { name: 'a' })
  await lab.pass(5)
  expect((await lab.lease('a')).spec.holderIdentity).toBe('a')
  await lab.pass(15)
  expect((await lab.objects.list(Lease)).items.map(({ metadata }) => metadata.name)).toEqual([
    'host-b',
    'host-c',
  ])
})

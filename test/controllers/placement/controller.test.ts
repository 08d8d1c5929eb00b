import { expect, onTestFinished, test } from 'vitest'
import { Assumed } from '../../../src/controllers/placement/assumed.ts'
import { place } from '../../../src/controllers/placement/index.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { Lease } from '../../../src/resources/kinds.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { ApiError } from '../../../src/store/errors.ts'
import { asNewerVersion } from '../../fakes/newer-version.ts'
import { cluster, type UpdateStatus } from './cluster.ts'
import { fenced, labelled, machine, ready } from './fixture.ts'

const condition = (type: string) => ({ ...ready, type, message: 'kept' })

test('a machine gets a host, the epoch of its lease, and a word of it', async () => {
  const { advance, lead, addHost, add, get } = cluster()
  await addHost('a', {}, '8Gi', 7)
  await add('web', {}, { restarts: 3, conditions: [condition('Ready')] })
  const { said } = lead()
  await advance(200)
  const { status } = await get('web')
  expect(status).toMatchObject({
    ...{ hostName: 'a', placementEpoch: 7, disksHost: 'a', phase: 'Pending', reason: 'Placed', restarts: 3 },
    conditions: [
      { type: 'Ready', message: 'kept' },
      { type: 'Scheduled', status: 'True', reason: 'Placed', message: 'on host a' },
    ],
  })
  expect(said).toEqual(['web Scheduled: placed on host a'])
})

test('what is made later is placed when it is made', async () => {
  const { advance, lead, addHost, add, hostOf } = cluster()
  lead()
  await advance(200)
  await add('web')
  await advance(200)
  expect(await hostOf('web')).toBeUndefined()
  await addHost('a')
  await advance(300)
  expect(await hostOf('web')).toBe('a')
})

test('one that no host takes says why, once, and is placed when that changes', async () => {
  const { advance, lead, addHost, add, get, hostOf, scheduled, changeHost } = cluster()
  await addHost('a', { unschedulable: true })
  await add('web', {}, { conditions: [condition('DisksReady')] })
  const { said, writes } = lead()
  await advance(300)
  const message = '0 of 1 hosts fit: a: cordoned (spec.unschedulable)'
  expect((await get('web')).status).toMatchObject({ phase: 'Pending', reason: 'Unschedulable', message })
  expect(await scheduled('web')).toMatchObject({ status: 'False', reason: 'Unschedulable', message })
  await advance(60_000)
  expect(writes(), 'nothing is written that is not new').toBe(1)
  expect(said).toEqual([`web FailedScheduling: ${message}`])
  await changeHost('a', { unschedulable: false })
  await advance(300)
  expect(await hostOf('web')).toBe('a')
  const { status } = await get('web')
  expect(status?.message).toBeUndefined()
  expect(status?.conditions.map(({ type, status: is }) => `${type} ${is}`)).toEqual([
    'DisksReady True',
    'Scheduled True',
  ])
})

test('numbers that change are written now and then', async () => {
  const { advance, lead, addHost, add, scheduled } = cluster()
  await addHost('a', {}, '2Gi')
  await add('huge', { memory: '1Ti' })
  const { writes } = lead()
  await advance(300)
  for (const name of ['x', 'y']) {
    await add(name)
    await advance(300)
  }
  expect(writes(), 'one for each machine').toBe(3)
  await advance(20_000)
  expect(writes()).toBe(4)
  expect((await scheduled('huge'))?.message).toContain('0 free of 2Gi')
})

test('numbers of many are written some at a time, until all are', async () => {
  const { objects, advance, lead, addHost, add } = cluster()
  await addHost('a', {}, '2Gi')
  const count = 500
  for (let i = 0; i < count; i++) await add(`huge${i}`, { memory: '1Ti' })
  const { writes } = lead()
  await advance(500)
  expect(writes()).toBe(count)
  await advance(20_000)
  await add('web')
  await advance(300)
  expect(writes(), 'one is placed, and some are told').toBe(count + 1 + 200)
  await advance(9_000)
  expect(writes()).toBe(count + 1 + 200)
  await advance(40_000)
  expect(writes(), 'each once').toBe(count + 1 + count)
  const { items } = await objects.list(VirtualMachine)
  const huge = items.filter(({ metadata }) => metadata.name.startsWith('huge'))
  expect(huge.every(({ status }) => status?.message?.includes('1Gi free of 2Gi'))).toBe(true)
})

test('numbers that change all the time are told of everybody in turn', async () => {
  const { objects, advance, lead, addHost, add } = cluster()
  await addHost('a', {}, '2Gi')
  for (let i = 0; i < 500; i++) await add(`huge${i}`, { memory: '1Ti' })
  lead()
  await advance(20_000)
  for (let i = 0; i < 3; i++) {
    await add(`small${i}`, { memory: '64Mi' })
    await advance(12_000)
  }
  const { items } = await objects.list(VirtualMachine)
  expect(items.filter(({ status }) => status?.message?.includes('2Gi free of 2Gi'))).toEqual([])
})

test('the end of a maintenance is noticed', async () => {
  const { clock, advance, lead, addHost, add, hostOf } = cluster()
  const until = new Date(clock.now() + 30_000).toISOString()
  await addHost('a', { maintenance: { until } })
  await add('web')
  lead()
  await advance(20_000)
  expect(await hostOf('web')).toBeUndefined()
  await advance(25_000)
  expect(await hostOf('web')).toBe('a')
})

test('what renews and reports sets no pass going', async () => {
  const { objects, advance, lead, addHost, add } = cluster()
  await addHost('a')
  await add('web')
  const { passes } = lead()
  await advance(500)
  const before = passes()
  for (let i = 0; i < 5; i++) {
    const one = await objects.get(Lease, { namespace: 'plasmavmc-system', name: 'host-a' })
    await objects.update(Lease, { ...one, spec: { ...one.spec, renewTime: `t${i}` } })
    const vm = await objects.get(VirtualMachine, { namespace: 'default', name: 'web' })
    await objects.updateStatus(VirtualMachine, { ...vm, status: { ...vm.status!, message: `m${i}` } })
    await advance(200)
  }
  expect(passes()).toBe(before)
})

test('a write that loses to another is decided anew from what won', async () => {
  const { objects, advance, lead, addHost, add, get } = cluster()
  await addHost('a')
  await addHost('b')
  await add('web')
  let conflicts = 0
  const { failures } = lead(async (next, vm) => {
    // Somebody asks for another host right before the first write.
    if (conflicts++ === 0) {
      const before = await get('web')
      const spec = { ...before.spec, hostSelector: { 'kubernetes.io/hostname': 'b' } }
      await objects.update(VirtualMachine, { ...before, spec })
    }
    return next(vm)
  })
  await advance(1_000)
  expect([conflicts, failures()]).toEqual([2, 0])
  expect((await get('web')).status?.hostName).toBe('b')
})

test('a machine that is removed right before it is placed holds up nobody', async () => {
  const { objects, advance, lead, addHost, add, hostOf } = cluster()
  await addHost('a')
  await add('gone')
  await add('stays')
  lead(async (next, vm) => {
    if (vm.metadata.name === 'gone')
      await objects.delete(VirtualMachine, { namespace: 'default', name: 'gone' })
    return next(vm)
  })
  await advance(500)
  expect(await hostOf('stays')).toBe('a')
})

test('a write whose answer is lost is not decided otherwise', async () => {
  const { advance, lead, addHost, add, hostOf, objects } = cluster()
  await addHost('a', {}, '1Gi')
  await addHost('b', {}, '1Gi')
  await add('web')
  let lost = 0
  lead(async (next, vm) => {
    if (lost++ > 0) return next(vm)
    // It is not made either, for now; the host that was chosen becomes the worse one.
    await objects.create(VirtualMachine, {
      ...machine('late', { priority: 9 }),
      metadata: { name: 'late', namespace: 'default' },
    })
    throw new ApiError('Timeout', 'no answer')
  })
  await advance(2_000)
  expect([await hostOf('web'), await hostOf('late')]).toEqual(['a', 'b'])
})

test('a write that was made although its answer was lost is not made twice', async () => {
  const { advance, lead, addHost, add, get, hostOf } = cluster()
  await addHost('a', {}, '1Gi')
  await addHost('b', {}, '1Gi')
  for (const name of ['x', 'y', 'z']) await add(name)
  let lost = 0
  lead(async (next, vm) => {
    const written = await next(vm)
    if (lost++ === 0) throw new ApiError('Timeout', 'no answer')
    return written
  })
  await advance(2_000)
  expect([await hostOf('x'), await hostOf('y'), await hostOf('z')]).toEqual(['a', 'b', undefined])
  expect((await get('z')).status?.reason).toBe('Unschedulable')
})

test('what may have been written is given up when its host is lost meanwhile', async () => {
  const { objects, advance, lead, addHost, add, hostOf } = cluster()
  await addHost('a')
  await add('web')
  let lost = 0
  lead(async (next, vm) => {
    if (lost++ > 0) return next(vm)
    const held = await objects.get(Lease, { namespace: 'plasmavmc-system', name: 'host-a' })
    await objects.update(Lease, { ...held, spec: fenced('a').spec })
    await addHost('b')
    throw new ApiError('Timeout', 'no answer')
  })
  await advance(2_000)
  expect(await hostOf('web')).toBe('b')
})

test('what the copy does not show yet counts already', async () => {
  const { advance, lag, lead, addHost, add, hostOf } = cluster()
  await addHost('a', {}, '2Gi')
  const { writes, failures } = lead()
  lag()
  const made = ['p', 'q', 'r', 's']
  for (const [priority, name] of made.entries()) {
    await add(name, { priority })
    await advance(200)
  }
  expect(await Promise.all(made.map(hostOf))).toEqual(['a', 'a', undefined, undefined])
  expect([writes(), failures()], 'nothing is tried twice').toEqual([4, 0])
})

test('a machine that had a host before that was noted: where its disks are is noted', async () => {
  const { advance, lead, addHost, add, get, scheduled } = cluster()
  await addHost('a')
  await add('old', {}, { hostName: 'a', placementEpoch: 1, phase: 'Running', reason: 'Running' })
  const { writes } = lead()
  await advance(1_000)
  expect((await get('old')).status).toMatchObject({ hostName: 'a', disksHost: 'a', phase: 'Running' })
  expect(await scheduled('old')).toMatchObject({ status: 'True', reason: 'TakenUp', message: 'by host a' })
  expect(writes()).toBe(1)
})

test('an adopted machine is left to its host, and noted when that has taken it up', async () => {
  const { objects, advance, lead, addHost, add, get, scheduled } = cluster()
  await addHost('a')
  const { said } = lead()
  await advance(200)
  const adopted = machine('x', {}, undefined, { annotations: { 'plasmavmc.io/adopted-from': 'gone' } })
  const { name, namespace, annotations } = adopted.metadata
  const metadata = { name, ...(namespace && { namespace }), ...(annotations && { annotations }) }
  await objects.create(VirtualMachine, { ...adopted, metadata })
  await add('y')
  await advance(500)
  expect(await scheduled('x')).toMatchObject({ status: 'False', reason: 'Adopted' })
  expect(said).toEqual(['y Scheduled: placed on host a'])
  const vm = await get('x')
  await objects.updateStatus(VirtualMachine, { ...vm, status: { ...vm.status!, hostName: 'gone' } })
  await advance(500)
  expect(await scheduled('x')).toMatchObject({ status: 'True', reason: 'TakenUp' })
  expect((await get('x')).status?.disksHost).toBe('gone')
})

test('it stops when it leads no more', async () => {
  const { advance, lead, addHost, add, hostOf } = cluster()
  await addHost('a')
  const leader = lead()
  await advance(200)
  await leader.stop()
  await add('web')
  await advance(1_000)
  expect(await hostOf('web')).toBeUndefined()
})

test('two leaders at once never give a machine two hosts', async () => {
  const { objects, advance, lead, addHost, add } = cluster()
  for (const name of ['a', 'b', 'c']) await addHost(name, {}, '64Gi')
  const given = new Map<string, string[]>()
  const counted = async (next: UpdateStatus, vm: VirtualMachine) => {
    const written = await next(vm)
    const hosts = given.get(vm.metadata.name) ?? []
    given.set(vm.metadata.name, [...hosts, written.status?.hostName ?? ''])
    return written
  }
  lead(counted)
  lead(counted)
  const names = Array.from({ length: 40 }, (_, i) => `m${i}`)
  for (const [i, name] of names.entries()) {
    await add(name, { priority: i % 3 })
    if (i % 7 === 0) await advance(100)
  }
  await advance(3_000)
  const { items } = await objects.list(VirtualMachine)
  expect(items.every(({ status }) => status?.hostName !== undefined)).toBe(true)
  expect(given.size).toBe(names.length)
  expect([...given.values()].filter((hosts) => hosts.length !== 1)).toEqual([])
})

test('a group that waits for one of it follows in the next pass', async () => {
  const { advance, lead, addHost, add, hostOf } = cluster()
  await addHost('a')
  await addHost('b')
  await add('web', { affinity: { together: [{ labels: { app: 'db' } }] }, priority: 9 })
  await add('db', {}, undefined, labelled({ app: 'db' }).labels)
  lead()
  await advance(1_000)
  expect(await hostOf('web')).toBe(await hostOf('db'))
  expect(await hostOf('web')).toBeDefined()
})

test('a stop is heard in the middle of deciding', async () => {
  const { objects, clock, advance, informersOver, addHost, add, hostOf } = cluster()
  await addHost('a')
  await add('web')
  await add('db')
  const stopping = new AbortController()
  onTestFinished(() => stopping.abort())
  const copies = informersOver(objects)
  for (const copy of Object.values(copies)) void copy.run(stopping.signal)
  await advance(100)
  // Each look at it takes longer than a stretch may.
  let looks = 0
  clock.elapsed = () => 50 * looks++
  const deps = { objects, ...copies, clock, log: silentLog, tell: () => {}, told: new Map() }
  const pass = place({ ...deps, assumed: new Assumed() }, stopping.signal)
  setImmediate(() => stopping.abort(new Error('told to stop')))
  await expect(pass).rejects.toThrow('told to stop')
  expect(await hostOf('web')).toBeUndefined()
})

test('what another version stored and this one does not understand waits, and keeps nobody else', async () => {
  const { advance, lead, addHost, add, hostOf, kv } = cluster()
  const newer = (name: string, change: Parameters<typeof asNewerVersion>[3]) =>
    asNewerVersion(kv, VirtualMachine, { namespace: 'default', name }, change)
  await addHost('a')
  for (const name of ['strange', 'shapeless', 'plain']) await add(name)
  await newer('strange', ({ spec }) => {
    spec['affinity'] = 'close to the window'
  })
  await newer('shapeless', (stored) => {
    stored.spec = 'small' as never
  })
  const { failures } = lead()
  await advance(300)
  expect(await hostOf('plain')).toBe('a')
  expect([await hostOf('strange'), await hostOf('shapeless'), failures()]).toEqual([undefined, undefined, 0])
  await newer('strange', ({ spec }) => {
    delete spec['affinity']
  })
  await advance(300)
  expect(await hostOf('strange')).toBe('a')
})

import { beforeEach, expect, test } from 'vitest'
import {
  type HostControllerDeps,
  type HostFacts,
  isContradicted,
  reconcileHost,
} from '../../../src/controllers/host/index.ts'
import { hostIdAnnotation } from '../../../src/controllers/host/register.ts'
import type { Processes, Tenure } from '../../../src/host/ports.ts'
import { silentLog } from '../../../src/lib/log.ts'
import type { Condition } from '../../../src/resources/conditions.ts'
import { hostStatus } from '../../../src/resources/host.ts'
import { Host } from '../../../src/resources/kinds.ts'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import type { Informer } from '../../../src/runtime/informer.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'

const facts: HostFacts = {
  ...{ cpus: 8, memory: '16Gi', accelerator: 'tcg', qemuVersion: '7.2.0', agentVersion: '1', arch: 'amd64' },
  ...{ addresses: ['192.0.2.7', 'fd00::7'], capabilities: ['live-migration'] },
}

let clock: VirtualClock
let objects: KvObjects
let tenure: Tenure
let seen: HostFacts

beforeEach(() => {
  clock = new VirtualClock()
  let uid = 0
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => `uid-${uid++}` })
  tenure = { state: 'single' }
  seen = facts
})

const deps = (more: Partial<HostControllerDeps> = {}): HostControllerDeps => ({
  ...{ hostName: 'a', runDir: '/run/x', objects, clock, log: silentLog },
  processes: { bootId: 'boot-1', scan: async () => ({ processes: [] }) } as unknown as Processes,
  vms: { list: () => [], synced: true } as unknown as Informer<VirtualMachine>,
  facts: async () => seen,
  tenure: () => tenure,
  ...more,
})
const host = () => objects.get(Host, { name: 'a' })
const ready = async () => (await host()).status?.conditions.find(({ type }) => type === 'Ready')

async function alsoSay(condition: Partial<Condition> & Pick<Condition, 'type' | 'status'>): Promise<void> {
  const before = await host()
  const others = (before.status?.conditions ?? []).filter(({ type }) => type !== condition.type)
  const at = { lastTransitionTime: '2026-01-01T00:00:00Z', reason: 'X', message: 'x' }
  const conditions = [...others, { ...at, ...condition }]
  await objects.updateStatus(Host, { ...before, status: { ...before.status!, conditions } })
}

test('the first look registers the host with its labels, and the next ones write nothing', async () => {
  await reconcileHost(deps({ fencing: 'guard', hostId: 'id-a' }))
  const first = await host()
  expect(first.metadata.labels).toEqual({
    'kubernetes.io/hostname': 'a',
    'kubernetes.io/arch': 'amd64',
    'plasmavmc.io/accelerator': 'tcg',
  })
  expect(first.metadata.annotations).toEqual({ [hostIdAnnotation]: 'id-a' })
  expect(first.spec.fencing.mode).toBe('guard')
  expect(first.status).toMatchObject({
    ...{ cpus: 8, bootId: 'boot-1', addresses: ['192.0.2.7', 'fd00::7'], capabilities: ['live-migration'] },
    conditions: [{ type: 'Ready', status: 'True', reason: 'Ready' }],
  })
  expect(first.status).not.toHaveProperty('arch')
  await reconcileHost(deps({ fencing: 'watchdog', hostId: 'id-a' }))
  expect(await host()).toEqual(first)
})

test('labels of users stay, ours are put right', async () => {
  await reconcileHost(deps())
  const before = await host()
  const labels = { zone: 'north', 'kubernetes.io/hostname': 'wrong' }
  await objects.update(Host, { ...before, metadata: { ...before.metadata, labels } })
  seen = { ...facts, accelerator: 'kvm' }
  await reconcileHost(deps())
  expect((await host()).metadata.labels).toEqual({
    zone: 'north',
    'kubernetes.io/hostname': 'a',
    'kubernetes.io/arch': 'amd64',
    'plasmavmc.io/accelerator': 'kvm',
  })
})

test('what is not known at a look stays as it was', async () => {
  await reconcileHost(deps())
  const { addresses: _a, capabilities: _c, ...rest } = facts
  seen = rest
  const before = await host()
  await reconcileHost(deps())
  expect(await host()).toEqual(before)
})

test('the epoch is that of the lease, and conditions of others are kept', async () => {
  tenure = { state: 'held', epoch: 3, leftMs: 4_000 }
  await reconcileHost(deps())
  await alsoSay({ type: 'Fenced', status: 'False' })
  tenure = { state: 'held', epoch: 4, leftMs: 4_000 }
  await reconcileHost(deps())
  const { status } = await host()
  expect(status?.epoch).toBe(4)
  expect(status?.conditions.map(({ type }) => type)).toEqual(['Ready', 'Fenced'])
})

test('a lost lease is told, and told back', async () => {
  tenure = { state: 'held', epoch: 3, leftMs: 4_000 }
  await reconcileHost(deps())
  tenure = { state: 'lost', why: 'the guard does not answer' }
  await reconcileHost(deps())
  expect(await ready()).toMatchObject({
    ...{ status: 'False', reason: 'LeaseLost', message: 'the guard does not answer' },
  })
  expect((await host()).status?.epoch).toBe(3)
  tenure = { state: 'held', epoch: 3, leftMs: 4_000 }
  await reconcileHost(deps())
  expect(await ready()).toMatchObject({ status: 'True' })
})

test('the word of the leader for a silent lease is not contradicted while the lease is lost', async () => {
  await reconcileHost(deps())
  await alsoSay({ type: 'Ready', status: 'Unknown', reason: 'LeaseExpired' })
  const before = await host()
  tenure = { state: 'lost', why: 'no guard' }
  await reconcileHost(deps())
  expect(await host()).toEqual(before)
  tenure = { state: 'held', epoch: 1, leftMs: 4_000 }
  await reconcileHost(deps())
  expect(await ready()).toMatchObject({ status: 'True' })
})

test('what the guard says is told beside Ready, both ways, whoever else says what', async () => {
  const news = (status: 'True' | 'False', message: string, agent: 'alive' | 'silent' = 'alive') => ({
    ...{ guarded: { type: 'Guarded', status, reason: 'X', message }, agent },
  })
  const guarded = async () => (await host()).status?.conditions.find(({ type }) => type === 'Guarded')
  tenure = { state: 'held', epoch: 1, leftMs: 4_000 }
  await reconcileHost(deps({ news: () => news('True', '') }))
  await alsoSay({ type: 'Ready', status: 'Unknown', reason: 'LeaseExpired' })
  tenure = { state: 'lost', why: 'no guard' }
  await reconcileHost(deps({ news: () => news('False', 'web lives') }))
  expect(await guarded()).toMatchObject({ status: 'False', message: 'web lives' })
  expect(await ready()).toMatchObject({ status: 'Unknown', reason: 'LeaseExpired' })
  await alsoSay({ type: 'Guarded', status: 'Unknown', reason: 'LeaseExpired' })
  expect(isContradicted(await host())).toBe(true)
  tenure = { state: 'held', epoch: 1, leftMs: 4_000 }
  await reconcileHost(deps({ news: () => news('True', '') }))
  expect(await guarded()).toMatchObject({ status: 'True' })
  expect(isContradicted(await host())).toBe(false)
  expect((await host()).status?.conditions.map(({ type }) => type)).toEqual(['Ready', 'Guarded'])
})

test('that its agent is silent stands for as long as the lease says so', async () => {
  const news = (agent: 'alive' | 'silent') => ({
    ...{ guarded: { type: 'Guarded', status: 'True', reason: 'LeaseHeld', message: '' } as const, agent },
  })
  tenure = { state: 'held', epoch: 1, leftMs: 4_000 }
  await reconcileHost(deps({ news: () => news('alive') }))
  await alsoSay({ type: 'Ready', status: 'Unknown', reason: 'AgentSilent' })
  const before = await ready()
  await reconcileHost(deps({ news: () => news('silent') }))
  expect(await ready()).toEqual(before)
  await reconcileHost(deps({ news: () => news('alive') }))
  expect(await ready()).toMatchObject({ status: 'True' })
})

test('a host whose name another took says so instead of writing to it', async () => {
  await reconcileHost(deps({ hostId: 'id-a' }))
  const before = await host()
  await expect(reconcileHost(deps({ hostId: 'id-b' }))).rejects.toMatchObject({ code: 'HostNameTaken' })
  expect(await host()).toEqual(before)
})

test('how a host stands, in the words of kubectl get nodes', () => {
  const at = Date.parse('2026-01-01T00:00:00Z')
  const of = (conditions: object[], spec = {}) =>
    hostStatus({ spec, status: { conditions } } as Parameters<typeof hostStatus>[0], at)
  const yes = { type: 'Ready', status: 'True', reason: 'Ready' }
  const expired = { type: 'Ready', status: 'Unknown', reason: 'LeaseExpired' }
  expect(of([yes])).toBe('Ready')
  expect(of([yes], { unschedulable: true })).toBe('Ready,SchedulingDisabled')
  expect(of([expired, { type: 'Fenced', status: 'True' }])).toBe('NotReady,LeaseExpired,Fenced')
  expect(of([yes, { type: 'Fenced', status: 'False' }])).toBe('Ready')
  expect(of([yes], { maintenance: { until: '2026-01-01T00:00:01Z' } })).toBe('Ready,Maintenance')
  expect(of([yes], { maintenance: { until: '2026-01-01T00:00:00Z' } })).toBe('Ready')
  expect(hostStatus({}, at)).toBe('NotReady,NeverSeen')
})

import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { claimHost } from '../src/controllers/host/claim.ts'
import { hostIdAnnotation } from '../src/controllers/host/register.ts'
import { systemClock } from '../src/lib/clock.ts'
import { silentLog } from '../src/lib/log.ts'
import { Host, type Host as HostObject, hostSpec } from '../src/resources/host.ts'
import {
  type HostLeaseFacts,
  hostLeaseName,
  leaseAnnotations,
  systemNamespace,
} from '../src/resources/host-lease.ts'
import { Lease } from '../src/resources/kinds.ts'
import { VirtualMachine, vmStatus } from '../src/resources/vm.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { MemoryKv } from '../src/store/memory.ts'
import { noVotes, requireHostsApart, requireNoOtherHosts } from '../src/wire-kubernetes.ts'
import { type LeaderOptions, runLeader } from '../src/wire-leader.ts'
import { vm } from './contract/objects.ts'

const store = () => new KvObjects(new MemoryKv(), { clock: systemClock, newUid: randomUUID })

async function host(
  objects: KvObjects,
  name: string,
  of: { readonly id?: string; readonly bootId?: string },
): Promise<HostObject> {
  const annotations = of.id === undefined ? {} : { [hostIdAnnotation]: of.id }
  const made = await objects.create(Host, {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'Host', metadata: { name, annotations } },
    spec: hostSpec.parse({}),
  })
  if (of.bootId === undefined) return made
  const status = { bootId: of.bootId, addresses: [], capabilities: [], orphans: [], conditions: [] }
  return objects.updateStatus(Host, { ...made, status })
}

test('an agent joins no server that runs machines itself, which would start its machines a second time', async () => {
  const objects = store()
  await host(objects, 'made-by-hand', {})
  await host(objects, 'joined', { id: 'x', bootId: 'b' })
  await requireHostsApart(objects, 'me')
  await host(objects, 'alone', { bootId: 'b' })
  await expect(requireHostsApart(objects, 'me')).rejects.toMatchObject({ code: 'OneHostServer' })
  // Its own machines are what it comes for.
  await requireHostsApart(objects, 'alone')
})

test('a server runs no machines itself beside hosts that joined', async () => {
  const objects = store()
  await host(objects, 'me', { bootId: 'b' })
  await host(objects, 'made-by-hand', {})
  await requireNoOtherHosts(objects, 'me')
  await host(objects, 'joined', { id: 'x', bootId: 'b' })
  await expect(requireNoOtherHosts(objects, 'me')).rejects.toMatchObject({
    code: 'HostsJoined',
    message: expect.stringContaining('joined joined this store'),
  })
})

test('a name whose host ran machines without a lease is taken over by that very boot only', async () => {
  const objects = store()
  await host(objects, 'one', { bootId: 'boot-1' })
  const made = await objects.create(VirtualMachine, vm('web'))
  const process = {
    ...{ pid: 7, startTime: 1, bootId: 'boot-1', launchId: 'l', accelerator: 'tcg' },
    ...{ startedAt: '2026-01-02T03:04:05Z', specHash: 'h' },
  }
  const status = vmStatus.parse({ phase: 'Running', hostName: 'one', process })
  await objects.updateStatus(VirtualMachine, { ...made, status })
  const claim = (bootId: string) =>
    claimHost({
      ...{
        objects,
        hostName: 'one',
        labels: {},
        hostId: `id-${bootId}`,
        bootId,
        durationMs: 10,
        renewMs: 3_000,
      },
      ...{ clock: systemClock, log: silentLog, signal: new AbortController().signal },
    })
  await expect(claim('boot-2')).rejects.toMatchObject({ code: 'HostNameTaken' })
  await claim('boot-1')
  const { metadata } = await objects.get(Host, { name: 'one' })
  expect(metadata.annotations?.[hostIdAnnotation]).toBe('id-boot-1')
})

test('nobody agrees where guards can’t be asked, and what is said tells what to do', async () => {
  const facts: HostLeaseFacts = {
    ...{ deadlineMs: 1, stopMs: 1, members: ['a', 'b', 'c'], bootId: 'b' },
    selfFence: 'guard',
    agent: 'alive',
  }
  const lease: Lease = {
    ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', spec: {} },
    metadata: { name: hostLeaseName('a'), annotations: leaseAnnotations(facts) },
  }
  const { consents, refusals } = await noVotes(lease, facts, new AbortController().signal)
  expect(consents).toEqual([])
  expect(refusals.map(({ host: name }) => name)).toEqual(['a', 'b', 'c'])
  expect(refusals[0]?.why).toContain('plasmavmc host fence')
})

test('a leader without a Kv of its own leads by the lease, and writes nothing after its term', async () => {
  const objects = store()
  const signal = new AbortController()
  const led: unknown[] = []
  const part: LeaderOptions['parts'][number] = async (term) => {
    led.push(await term.objects.list(Host))
    const ended = new Promise<void>((done) => term.signal.addEventListener('abort', () => done()))
    signal.abort()
    await ended
    await expect(term.objects.delete(Lease, { namespace: systemNamespace, name: 'x' })).rejects.toThrow(
      'its term has ended',
    )
  }
  await runLeader({ config: { hostName: 'a' }, objects, log: silentLog, parts: [part] }, signal.signal)
  expect(led).toHaveLength(1)
  expect((await objects.list(Lease)).items).toHaveLength(1)
})

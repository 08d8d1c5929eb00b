import { beforeEach, expect, test } from 'vitest'
import { type ClaimDeps, claimHost, ownerOf } from '../../../src/controllers/host/claim.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import {
  fencedHolder,
  hostLeaseName,
  leaseAnnotations,
  systemNamespace,
} from '../../../src/resources/host-lease.ts'
import { Host, Lease } from '../../../src/resources/kinds.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'

let clock: VirtualClock
let objects: KvObjects
const leaseRef = { namespace: systemNamespace, name: hostLeaseName('a') }
const never = new AbortController().signal

beforeEach(() => {
  clock = new VirtualClock()
  let uid = 0
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => `uid-${uid++}` })
})

const deps = (hostId: string, more: Partial<ClaimDeps> = {}): ClaimDeps => ({
  ...{ objects, hostName: 'a', hostId, labels: { zone: 'x' }, bootId: `boot-${hostId}`, log: silentLog },
  ...{ clock, signal: never, durationMs: 10_000, renewMs: 3_000 },
  ...more,
})

/** Lets the time pass that a claim may take. @returns the error's code and text, or 'claimed' */
async function claim(hostId: string, whileIt: () => Promise<unknown> = async () => {}, more = {}) {
  const result = claimHost(deps(hostId, more)).then(
    () => 'claimed',
    (error: { code?: string; message: string; hint?: string }) =>
      `${error.code}: ${error.message}; ${error.hint}`,
  )
  for (let i = 0; i < 20; i++) {
    await clock.advance(1_000)
    await whileIt()
  }
  return result
}

const owner = async () => ownerOf(await objects.get(Host, { name: 'a' }))

async function renew(holder = 'a/one', epoch = 1, bootId = 'boot-one'): Promise<void> {
  const renewTime = new Date(clock.now()).toISOString()
  const spec = { holderIdentity: holder, leaseTransitions: epoch, renewTime }
  const promise = { deadlineMs: 6_000, stopMs: 2_500, selfFence: 'guard', members: ['a'] } as const
  const annotations = leaseAnnotations({ ...promise, agent: 'alive', bootId })
  const before = await objects.get(Lease, leaseRef).catch(() => undefined)
  if (before) await objects.update(Lease, { ...before, metadata: { ...before.metadata, annotations }, spec })
  else
    await objects.create(Lease, {
      ...{ apiVersion: apiVersionOf(Lease), kind: 'Lease', metadata: { ...leaseRef, annotations } },
      spec,
    })
}

/** A machine that the store says runs on host a. */
async function placed(): Promise<void> {
  const vm = await objects.create(VirtualMachine, {
    ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
    metadata: { name: 'web', namespace: 'default' },
    spec: { memory: '64Mi' },
  } as unknown as VirtualMachine)
  const launch = { id: 'l', at: '2026-01-01T00:00:00Z', bootId: 'boot-one' }
  const status = { restarts: 0, disks: [], networks: [], conditions: [], hostName: 'a', launch }
  await objects.updateStatus(VirtualMachine, { ...vm, status })
}

const evidence = (proof: 'Guard' | 'Operator', epoch: number) =>
  objects.create(FenceEvidence, {
    ...{ apiVersion: apiVersionOf(FenceEvidence), kind: 'FenceEvidence', metadata: { name: `a-${epoch}` } },
    spec: { host: 'a', epoch, proof, by: 'me', at: '2026-01-01T00:00:00Z', votes: [], seen: 'it' },
  })

test('a new name is taken at once, and stays one’s own', async () => {
  await claimHost(deps('one'))
  expect(await owner()).toBe('one')
  await renew()
  await claimHost(deps('one'))
  expect(await owner()).toBe('one')
})

test('a Host that was made by hand and never had a lease is taken at once', async () => {
  await objects.create(Host, {
    ...{ apiVersion: apiVersionOf(Host), kind: 'Host', metadata: { name: 'a', labels: { rack: '7' } } },
    spec: {},
  } as unknown as Host)
  await claimHost(deps('one'))
  expect(await owner()).toBe('one')
  expect((await objects.get(Host, { name: 'a' })).metadata.labels).toEqual({ rack: '7', zone: 'x' })
})

test('a name whose lease another renews is refused, however slowly it renews', async () => {
  await claimHost(deps('one'))
  await renew()
  let seconds = 0
  const said = await claim('two', async () => {
    seconds += 1
    if (seconds % 9 === 0) await renew()
  })
  expect(said).toMatch(/^HostNameTaken: --host-name: another host goes by the name a: it renews its lease; /)
  expect(await owner()).toBe('one')
})

test('a copy of the data folder is refused while the host itself renews its lease', async () => {
  await claimHost(deps('one'))
  await renew()
  let seconds = 0
  const renewing = async () => {
    seconds += 1
    if (seconds % 3 === 0) await renew()
  }
  expect(await claim('one', renewing, { bootId: 'boot-of-the-copy' })).toMatch(
    /^HostNameTaken: .*copy of the data folder.*remove host-id/,
  )
})

test('after a reboot the name is its own once the lease was quiet for a renewal, and at once after a long one', async () => {
  await claimHost(deps('one'))
  await renew()
  const began = clock.elapsed()
  const back = async () => {
    let endedAt = Number.NaN
    const done = claimHost(deps('one', { bootId: 'next' })).then(() => {
      endedAt = clock.elapsed()
    })
    for (let i = 0; i < 10; i += 1) await clock.advance(1_000)
    await done
    return endedAt
  }
  expect((await back()) - began).toBeLessThan(6_000)
  await clock.advance(20_000)
  const later = clock.elapsed()
  expect((await back()) - later).toBeLessThan(1_500)
})

test('after a reboot the name is its own as soon as its own guard renews the lease, or it was taken', async () => {
  await claimHost(deps('one'))
  for (const [holder, boot] of [
    ['a/one', 'next'],
    [fencedHolder, 'boot-one'],
  ] as const) {
    await renew()
    let seconds = 0
    const soon = async () => {
      seconds += 1
      if (seconds === 1) await renew(holder, 2, boot)
    }
    expect(await claim('one', soon, { bootId: 'next' })).toBe('claimed')
  }
})

test('of two that begin at the same time one is refused, once the other’s guard is up', async () => {
  await claimHost(deps('one'))
  let seconds = 0
  const said = await claim('two', async () => {
    seconds += 1
    if (seconds === 4) await renew()
  })
  expect(said).toMatch(/^HostNameTaken/)
})

test('a silent host’s name is not taken while one of its machines may run', async () => {
  await claimHost(deps('one'))
  await renew()
  await placed()
  const said = await claim('two')
  expect(said).toMatch(/HostNameTaken.*may still run default\/web.*plasmavmc host fence a --confirm-off/)
  expect(await owner()).toBe('one')
})

test('that its guard stopped some machines is no proof that it runs none', async () => {
  await claimHost(deps('one'))
  await renew(fencedHolder, 2)
  await placed()
  await evidence('Guard', 2)
  expect(await claim('two')).toMatch(/^HostNameTaken/)
  await evidence('Operator', 3)
  expect(await claim('two')).toMatch(/^HostNameTaken/)
})

test('a name is taken over from a host that is proven off', async () => {
  await claimHost(deps('one'))
  await renew(fencedHolder, 2)
  await placed()
  await evidence('Operator', 2)
  expect(await claim('two')).toBe('claimed')
  expect(await owner()).toBe('two')
})

test('a name is taken over from a silent host that has no machine', async () => {
  await claimHost(deps('one'))
  await renew()
  expect(await claim('two')).toBe('claimed')
})

test('a data folder that was lost does not lose a host its machines in the same boot', async () => {
  await claimHost(deps('one'))
  await renew()
  await placed()
  const host = await objects.get(Host, { name: 'a' })
  const blank = { addresses: [], capabilities: [], orphans: [], conditions: [] }
  await objects.updateStatus(Host, { ...host, status: { ...blank, bootId: 'same' } })
  expect(await claim('two', undefined, { bootId: 'same' })).toBe('claimed')
})

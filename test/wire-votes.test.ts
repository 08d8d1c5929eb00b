import { afterEach, expect, it } from 'vitest'
import { type PeerQuestion, PeerServer } from '../src/host/peers.ts'
import { systemClock } from '../src/lib/clock.ts'
import {
  type HostLeaseFacts,
  hostLeaseName,
  leaseAnnotations,
  systemNamespace,
} from '../src/resources/host-lease.ts'
import { Lease } from '../src/resources/kinds.ts'
import { clusterKey } from '../src/store/cluster-key.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { MemoryKv } from '../src/store/memory.ts'
import { peerVotes } from '../src/wire-guard.ts'

const servers: PeerServer[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close()
})

/** A store with the leases of `a`, which is lost, and of those whose guards answer, and what they were asked. */
async function cluster(...members: readonly string[]) {
  const kv = new MemoryKv()
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const key = await clusterKey(kv)
  const asked: [string, PeerQuestion][] = []
  const facts: HostLeaseFacts = {
    ...{ deadlineMs: 6_000, stopMs: 1_000, selfFence: 'guard', agent: 'alive', bootId: 'b' },
    members: ['a', ...members],
  }
  const made = (host: string, peer?: string) =>
    objects.create(Lease, {
      ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', spec: {} },
      metadata: {
        ...{ name: hostLeaseName(host), namespace: systemNamespace },
        annotations: leaseAnnotations({ ...facts, ...(peer !== undefined && { peer }) }),
      },
    } as never)
  for (const host of members) {
    const answer = async (question: PeerQuestion) => {
      asked.push([host, question])
      return { word: host === 'c' ? 'no' : 'yes', why: 'it was heard of' } as const
    }
    const listen = { host: '127.0.0.1', port: 0 }
    const server = await PeerServer.open({ listen, host, key: () => key, answer })
    servers.push(server)
    await made(host, `127.0.0.1:${server.port}`)
  }
  const votes = peerVotes({ kv, objects, hostName: members[0] ?? '', clock: systemClock })
  return { asked, facts, lease: (await made('a')) as Lease, votes }
}

it('asks the guards of all other members, by the version that was read', async () => {
  const { asked, facts, lease, votes } = await cluster('b', 'c')
  expect(await votes(lease, facts, new AbortController().signal)).toEqual({
    consents: ['b'],
    refusals: [{ host: 'c', why: 'it was heard of' }],
  })
  const question = { ask: 'consent', host: 'a', resourceVersion: lease.metadata.resourceVersion }
  expect(asked.map(([host]) => host).sort()).toEqual(['b', 'c'])
  for (const [, one] of asked) expect(one).toMatchObject(question)
})

it('asks nobody once the term is over: who consents may not say for a while that it has lost the store', async () => {
  const { asked, facts, lease, votes } = await cluster('b', 'c')
  expect((await votes(lease, facts, AbortSignal.abort())).consents).toEqual([])
  // Whoever was asked would have heard of it before this.
  await votes(lease, { ...facts, members: ['a', 'b'] }, new AbortController().signal)
  expect(asked.map(([host]) => host)).toEqual(['b'])
})

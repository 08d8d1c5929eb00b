import type { ClusterView, GuardDeps } from '../controllers/guard/ports.ts'
import { stopMs } from '../controllers/guard/rules.ts'
import { Guard } from '../controllers/guard/run.ts'
import type { StoreWord } from '../controllers/guard/state.ts'
import type { AskVotes } from '../controllers/hosts/types.ts'
import { GuardFence } from '../host/guard-fence.ts'
import { tenureOf } from '../host/guard-file.ts'
import type { Tenure } from '../host/ports.ts'
import { sleep } from '../lib/clock.ts'
import { Host } from '../resources/host.ts'
import { hostLeaseName, hostOfLease, leaseFacts, systemNamespace } from '../resources/host-lease.ts'
import { Lease } from '../resources/kinds.ts'
import { defaultTerms, LeaseContender } from '../runtime/lease.ts'
import { KvObjects } from '../store/kv-objects.ts'
import type { ObjectStore } from '../store/objects.ts'
import type { SimProcess } from './clock.ts'
import type { SimHost } from './host.ts'
import { SimProcesses } from './host-ports.ts'
import type { World } from './world.ts'

const askMs = 700
const aliveMs = 3_000
const everyMs = 1_000

/** Starts the guard's process of a host: the guard itself, with the world in place of files and sockets. */
export function startGuard(host: SimHost, world: World): void {
  const process = host.process('guard')
  const random = world.random.fork(`${process.name} at ${world.timeline.now}`)
  const clock = process.hostClock
  const objects = new KvObjects(world.store.client(host.name, process), {
    clock,
    newUid: () => random.uuid(),
  })
  const log = world.logOf(process)
  const processes = new SimProcesses(host, process, world.timeline, 'guard')
  const self = { pid: world.timeline.steps, startTime: 1, bootId: host.bootId }
  const { guardRecord: before } = host
  const deps: GuardDeps = {
    ...{ host: host.name, identity: host.name, terms: defaultTerms, clock, log },
    facts: { stopMs, selfFence: 'guard', peer: host.name, bootId: host.bootId },
    inherited: before?.bootId === host.bootId ? before : undefined,
    contender: (hooks) =>
      new LeaseContender({
        ...{ objects, clock, identity: host.name, terms: defaultTerms, ...hooks },
        ref: { namespace: systemNamespace, name: hostLeaseName(host.name) },
      }),
    look: () => lookAt(objects, host.name),
    ask: async (name) => {
      const askedAt = clock.elapsed()
      const reply = await world.peers.ask(host.name, process, name, { ask: 'lost' }, askMs)
      return reply === undefined ? undefined : { word: (reply as { word: StoreWord }).word, askedAt }
    },
    machines: new GuardFence({ processes, clock, log }),
    publish: (report) => {
      host.guardRecord = {
        ...{ ...report, ...self, version: 1, host: host.name, program: 'sim', aliveAt: clock.elapsed() },
      }
    },
    agentLives: () =>
      host.agentSign?.bootId === host.bootId && clock.elapsed() - host.agentSign.aliveAt < aliveMs,
  }
  const guard = new Guard(deps)
  world.peers.serve(host.name, process, (question, answer) => {
    const asked = question as { ask: 'lost' } | { ask: 'consent'; host: string }
    if (asked.ask === 'consent') answer(guard.consents(asked.host))
    else void guard.saysLost().then(answer)
  })
  void guard.run(new AbortController().signal)
}

async function lookAt(objects: ObjectStore, own: string): Promise<ClusterView> {
  const [hosts, leases] = await Promise.all([
    objects.list(Host),
    objects.list(Lease, { namespace: systemNamespace }),
  ])
  const peers = new Map(leases.items.map((lease) => [hostOfLease(lease.metadata.name), lease]))
  const members = new Map(
    hosts.items.map(({ metadata: { name } }) => {
      const lease = peers.get(name)
      return [name, lease && leaseFacts(lease).peer] as const
    }),
  )
  const host = hosts.items.find(({ metadata }) => metadata.name === own)
  if (!host) return { members, unclaimed: 'this host is not registered yet' }
  const until = host.spec.maintenance?.until
  return { members, ...(until !== undefined && { maintenance: until }) }
}

/** What the guard's record allows the agent of its host. */
export function tenureOn(host: SimHost, process: SimProcess): () => Tenure {
  return () => {
    const record = host.guardRecord
    if (!record) return { state: 'lost', why: 'there is no guard yet' }
    const lives = () => host.guard?.alive === true
    return tenureOf(record, { bootId: host.bootId, now: process.hostClock.elapsed(), lives })
  }
}

/** The agent's side: its sign of life, and another guard where there is none. */
export async function watchGuard(host: SimHost, world: World, process: SimProcess): Promise<never> {
  for (;;) {
    host.agentSign = { bootId: host.bootId, aliveAt: process.hostClock.elapsed() }
    if (!host.guard?.alive) world.parts.guard(host, world)
    await sleep(process.clock, everyMs)
  }
}

/** Asks the guards of the other members of a lost host's lease. */
export function askVotes(from: string, world: World, process: SimProcess): AskVotes {
  return async (lease, { members }) => {
    const host = hostOfLease(lease.metadata.name) ?? ''
    const question = { ask: 'consent', host }
    const replies = await Promise.all(
      members
        .filter((name) => name !== host)
        .map(async (name) => ({ name, reply: await world.peers.ask(from, process, name, question, askMs) })),
    )
    const answered = replies.map(({ name, reply }) => ({
      name,
      reply: reply as { consent: boolean; why: string } | undefined,
    }))
    return {
      consents: answered.filter(({ reply }) => reply?.consent).map(({ name }) => name),
      refusals: answered
        .filter(({ reply }) => !reply?.consent)
        .map(({ name, reply }) => ({ host: name, why: reply?.why ?? 'no answer' })),
    }
  }
}

import { stopMs } from '../controllers/guard/rules.ts'
import { Guard } from '../controllers/guard/run.ts'
import type { StoreWord } from '../controllers/guard/state.ts'
import type { AskVotes } from '../controllers/hosts/types.ts'
import { GuardFence } from '../host/guard-fence.ts'
import { tenureOf } from '../host/guard-file.ts'
import { GuardWatch } from '../host/guard-watch.ts'
import type { Processes } from '../host/ports.ts'
import { hostLeaseName, hostOfLease, systemNamespace } from '../resources/host-lease.ts'
import { defaultTerms, LeaseContender } from '../runtime/lease.ts'
import { GuardStore, guardBase } from '../wire-guard-store.ts'
import type { SimProcess } from './clock.ts'
import type { SimHost } from './host.ts'
import { SimProcesses } from './host-ports.ts'
import type { World } from './world.ts'

/** How long a host that is asked has for its answer, ms; as in `wire-guard.ts`. */
const [questionMs, voteMs] = [1_500, 1_000]
const agentSilentMs = 10_000
/** From the decision to start a guard to its first step, ms. */
const spawnMs = 250
const program = 'simulated'

/** What stands in the data folder of a host. */
export const hostIdOf = ({ name }: { readonly name: string }): string => `id-of-${name}`

/** Starts the guard's process of a host: the guard itself, with the world in place of files and sockets. */
export function startGuard(host: SimHost, world: World): void {
  const process = host.process('guard')
  const random = world.random.fork(`${process.name} at ${world.timeline.now}`)
  const clock = process.hostClock
  const log = world.logOf(process)
  const store = new GuardStore({
    ...{ hostName: host.name, hostId: hostIdOf(host), log, clock: process.clock },
    open: async () =>
      guardBase(world.store.client(host.name, process), {
        ...{ clock: process.clock, newUid: () => random.uuid(), reader: world.reader },
      }),
  })
  const self = { pid: process.pid, startTime: 1, bootId: host.bootId }
  const { guardRecord: before } = host
  const identity = `${host.name}/${hostIdOf(host)}`
  const fence = new GuardFence({ processes: processesOf(host, world, process, 'guard'), clock, log })
  const guard = new Guard({
    ...{ host: host.name, identity, terms: defaultTerms, clock, log },
    facts: { stopMs, selfFence: host.selfFence, peer: `${host.name}:7444`, bootId: host.bootId },
    inherited: before?.bootId === host.bootId ? before : undefined,
    contender: (hooks) =>
      new LeaseContender({
        ...{ objects: store.objects, clock, identity, terms: defaultTerms, ...hooks },
        ref: { namespace: systemNamespace, name: hostLeaseName(host.name) },
      }),
    look: () => store.look(`${host.name}:7444`),
    ask: async (name) => {
      const askedAt = clock.elapsed()
      const reply = await world.peers.ask(host.name, process, name, { ask: 'lost' }, questionMs)
      return reply === undefined ? undefined : { word: (reply as { word: StoreWord }).word, askedAt }
    },
    machines: { stop: fenceOf(world, fence), running: () => fence.running() },
    publish: (report) => {
      host.guardRecord = {
        version: 1,
        ...self,
        host: host.name,
        program,
        aliveAt: clock.elapsed(),
        ...report,
      }
    },
    agentLives: () =>
      host.agentSign?.bootId === host.bootId && clock.elapsed() - host.agentSign.aliveAt < agentSilentMs,
  })
  const { answer: said = (reply: unknown) => reply } = world.parts.mistakes ?? {}
  world.peers.serve(host.name, process, (question, tell) => {
    const answer = (reply: unknown) => tell(said(reply))
    const asked = question as { ask: 'lost' } | { ask: 'consent'; host: string }
    if (asked.ask === 'consent') answer(guard.consents(asked.host))
    else void guard.saysLost().then(answer)
  })
  void guard.run(new AbortController().signal)
}

/** The processes of a host, as one of its processes sees them. */
export function processesOf(
  host: SimHost,
  world: World,
  process: SimProcess,
  who: 'agent' | 'guard',
): Processes {
  const right = new SimProcesses(host, process, world.timeline, who)
  return world.parts.mistakes?.processes?.(right, host) ?? right
}

function fenceOf(world: World, fence: GuardFence): () => ReturnType<GuardFence['stop']> {
  const right = () => fence.stop()
  return world.parts.mistakes?.fence?.(right) ?? right
}

/** The agent's side: its sign of life, another guard where there is none, and its work where it does not act. */
export function guardWatch(host: SimHost, world: World, process: SimProcess): GuardWatch {
  const clock = process.hostClock
  const log = world.logOf(process)
  const processes = processesOf(host, world, process, 'agent')
  const fence = new GuardFence({ processes, clock, log })
  const lives = ({ pid }: { readonly pid: number }) => host.guard?.alive === true && host.guard.pid === pid
  return new GuardWatch({
    ...{ deadlineMs: defaultTerms.deadlineMs, log, clock, program, selfFence: host.selfFence !== 'none' },
    stop: fenceOf(world, fence),
    files: {
      bootId: host.bootId,
      read: () => (host.guardRecord?.bootId === host.bootId ? host.guardRecord : undefined),
      lives,
      tenure: () => {
        const record = host.guardRecord
        if (!record) return { state: 'lost', why: 'there is no guard yet' }
        const { bootId } = host
        return tenureOf(record, { bootId, now: clock.elapsed(), lives: () => lives(record) })
      },
      sign: () => {
        host.agentSign = { bootId: host.bootId, aliveAt: clock.elapsed() }
      },
    },
    spawn: async (replace) => {
      if (replace) host.guard?.kill()
      const ended = new Promise<string>(() => {})
      if (host.guard?.alive) return { pid: host.guard.pid, ended }
      const { bootId } = host
      world.timeline.after(spawnMs, () => {
        if (host.on && host.bootId === bootId && !host.guard?.alive) world.parts.guard(host, world)
      })
      return { pid: 0, ended }
    },
  })
}

/** Asks the guards of the other members of a lost host's lease. */
export function askVotes(from: string, world: World, process: SimProcess): AskVotes {
  const right: AskVotes = async (lease, { members }) => {
    const host = hostOfLease(lease.metadata.name) ?? ''
    const question = { ask: 'consent', host }
    const replies = await Promise.all(
      members
        .filter((name) => name !== host)
        .map(async (name) => {
          const reply = await world.peers.ask(from, process, name, question, voteMs)
          return { name, ...(reply as { consent: boolean; why: string } | undefined) }
        }),
    )
    return {
      consents: replies.filter(({ consent }) => consent).map(({ name }) => name),
      refusals: replies
        .filter(({ consent }) => !consent)
        .map(({ name, why = 'no answer' }) => ({ host: name, why })),
    }
  }
  return world.parts.mistakes?.votes?.(right) ?? right
}

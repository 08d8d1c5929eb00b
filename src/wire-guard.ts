import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { join } from 'node:path'
import { type Config, etcdUrls } from './config.ts'
import { stopMs } from './controllers/guard/rules.ts'
import { Guard } from './controllers/guard/run.ts'
import type { AskVotes } from './controllers/hosts/types.ts'
import { HostAddresses } from './host/addresses.ts'
import { hostClock } from './host/guard-clock.ts'
import { favour } from './host/guard-favour.ts'
import { GuardFence } from './host/guard-fence.ts'
import {
  agentLives,
  type GuardRecord,
  ownIdentity,
  readGuardRecord,
  writeGuardRecord,
} from './host/guard-file.ts'
import { GuardPeer } from './host/guard-peer.ts'
import { endGuard } from './host/guard-process.ts'
import { openWatchdog, type Watchdog } from './host/guard-watchdog.ts'
import { hostIdOf } from './host/host-id.ts'
import { askPeer, type PeerQuestion, type PeerReply, PeerServer } from './host/peers.ts'
import { Procfs } from './host/procfs.ts'
import { type Clock, sleep } from './lib/clock.ts'
import { PlasmaError } from './lib/errors.ts'
import { ensureFolder } from './lib/folders.ts'
import { jsonLog, type Log } from './lib/log.ts'
import { type HostLeaseFacts, hostLeaseName, hostOfLease, systemNamespace } from './resources/host-lease.ts'
import { Lease } from './resources/kinds.ts'
import { LeaseContender, type LeaseTerms } from './runtime/lease.ts'
import { clusterKey } from './store/cluster-key.ts'
import { lockFolder } from './store/folder-lock.ts'
import type { Kv } from './store/kv.ts'
import type { ObjectStore } from './store/objects.ts'
import { version } from './version.ts'
import { leaseTerms, programOf, requireCluster } from './wire-guard-settings.ts'
import { type GuardBase, GuardStore, guardBase, guardCallTimes, peerOf } from './wire-guard-store.ts'
import { openKubernetes } from './wire-kubernetes.ts'
import { openStore } from './wire-store.ts'

/** How long a host that is asked has for its answer, ms: whether it has lost the store, and whether it consents. */
const [questionMs, voteMs] = [1_500, 1_000]
/** How long a sign of life of the agent counts, ms. */
const agentSilentMs = 5_000

const guardFolder = (runDir: string) => join(runDir, 'guard')

export interface GuardIo {
  readonly signal: AbortSignal
  readonly stdout: { write(text: string): unknown }
  /** Take the place of a guard that lives. */
  readonly replace: boolean
  /** Wait while another guard runs; the place of one that a server started, told the same, is taken. */
  readonly wait: boolean
}

/**
 * Runs the guard of a run directory until it is told to stop and no failover-enabled machine needs it.
 * @throws PlasmaError where it can't start: another guard runs, a used port, a watchdog that can't be opened
 */
export async function runGuard(config: Config, io: GuardIo): Promise<void> {
  favour(process.pid)
  requireCluster(config)
  const terms = leaseTerms(config)
  const log = jsonLog(config.logLevel).child({ part: 'guard', host: config.hostName })
  const { runDir, dataDir } = config
  await ensureFolder(dataDir, '--data-dir')
  await ensureFolder(runDir, '--run-dir')
  const hostId = hostIdOf(dataDir)
  let guard: Guard | undefined
  const store = new GuardStore({
    ...{ hostName: config.hostName, hostId, log },
    open: () => openBase(config, log, () => guard?.storeReplaced()),
  })
  const unlock = await lock(config, { ...io, prepare: () => store.prepare() }, log)
  const folder = guardFolder(runDir)
  const keyFile = join(folder, 'key')
  store.useKeyFile({
    read: () => readFileSync(keyFile),
    write: (key) => writeFileSync(keyFile, key, { mode: 0o600 }),
  })
  const open: { close(): unknown }[] = [store]
  try {
    const watchdog = config.fencing === 'watchdog' ? openWatchdog(config.watchdogDevice) : undefined
    if (watchdog) open.push(watchdog)
    // Without a key that all guards know, nobody could be answered.
    const server = keepsKey(config)
      ? await PeerServer.open({
          ...{ listen: config.peerListen, host: config.hostName, key: () => store.key },
          answer: (question) => answered(guard, question),
        })
      : undefined
    if (server) open.push(server)
    guard = new Guard(depsOf(config, { terms, store, server, watchdog, log, hostId }))
    io.stdout.write(`plasmavmc ${version} guards ${config.hostName} (run directory ${runDir})\n`)
    await guard.run(io.signal)
  } finally {
    for (const one of open.reverse()) await one.close()
    if (existsSync(folder)) await unlock()
  }
}

/** Whether the store has the key by which guards know each other. */
const keepsKey = ({ store }: Config): boolean => store !== 'kubernetes'

async function openBase(config: Config, log: Log, onReplaced: () => void): Promise<GuardBase> {
  if (keepsKey(config)) return guardBase(await openStore(config, log, guardCallTimes, onReplaced))
  const { objects, close } = await openKubernetes(config, log, { callMs: guardCallTimes.callMs })
  return { objects, key: async () => undefined, close }
}

async function answered(guard: Guard | undefined, question: PeerQuestion): Promise<PeerReply> {
  if (!guard) return { word: question.ask === 'lost' ? 'undecided' : 'no', why: 'the guard is starting' }
  if (question.ask === 'lost') return guard.saysLost()
  const { consent, why } = guard.consents(question.host)
  return { word: consent ? 'yes' : 'no', why }
}

interface Parts {
  readonly terms: LeaseTerms
  readonly store: GuardStore
  readonly server: PeerServer | undefined
  readonly watchdog: Watchdog | undefined
  readonly log: Log
  readonly hostId: string
}

function depsOf(config: Config, { terms, store, server, watchdog, log, hostId }: Parts) {
  const { runDir, hostName: host, fencing } = config
  const self = ownIdentity()
  const clock = hostClock
  const peer =
    server &&
    new GuardPeer({
      ...{ said: config.peerAddress, listen: { host: config.peerListen.host, port: server.port }, log },
      addresses: HostAddresses.towards(etcdUrls(config)),
    })
  const program = programOf(config)
  const identity = `${host}/${hostId}`
  const facts: { peer?: string } & Pick<HostLeaseFacts, 'stopMs' | 'selfFence' | 'bootId'> = {
    ...{ stopMs: stopMs + (watchdog?.timeoutMs ?? 0), selfFence: fencing, bootId: self.bootId },
  }
  const keepCompiled = afterRenewal(clock.elapsed(), flushCompileCache)
  return {
    ...{ host, identity, terms, clock, log, inherited: readGuardRecord(runDir, self.bootId) },
    facts,
    contender: (hooks: Pick<ConstructorParameters<typeof LeaseContender>[0], 'facts' | 'own'>) =>
      new LeaseContender({
        ...{ objects: store.objects, clock, identity, terms, ...hooks },
        ref: { namespace: systemNamespace, name: hostLeaseName(host) },
      }),
    // Before the first renewal, and anew where the addresses of this host have changed; nothing waits for it at the start.
    look: async () => {
      if (peer) facts.peer = await peer.find()
      return store.look(facts.peer)
    },
    ask: (to: string, address: string) => askLost({ to, address, from: host, key: store.key, clock }),
    machines: GuardFence.of({ runDir, host, clock, log }),
    publish: (report: Parameters<ConstructorParameters<typeof Guard>[0]['publish']>[0]) => {
      writeGuardRecord(runDir, {
        ...{ version: 1, ...self, host, program, aliveAt: clock.elapsed() },
        ...report,
      })
      keepCompiled(report.sentAt)
    },
    agentLives: () =>
      agentLives(runDir, { bootId: self.bootId, withinMs: agentSilentMs, now: clock.elapsed() }),
    homeless: () => !existsSync(runDir),
    ...(watchdog && { pet: () => watchdog.pet() }),
  }
}

/**
 * Runs `work` once, right after the first renewal since `startedAt`, when there is most time until anything is due. Node
 * keeps compiled code for the next start when it exits, but a guard ends by SIGKILL.
 */
function afterRenewal(startedAt: number, work: () => void): (sentAt: number | undefined) => void {
  let done = false
  return (sentAt) => {
    if (done || sentAt === undefined || sentAt < startedAt) return
    done = true
    setImmediate(work)
  }
}

async function askLost(options: {
  readonly to: string
  readonly address: string
  readonly from: string
  readonly key: Buffer | undefined
  readonly clock: Clock
}) {
  const { key } = options
  if (!key) return undefined
  const reply = await askPeer({ ask: 'lost' }, { ...options, key, timeoutMs: questionMs })
  if (!reply || reply.word === 'yes' || reply.word === 'no') return undefined
  return { word: reply.word, askedAt: reply.askedAt }
}

/** The run directory, for one guard alone. `prepare` makes ready what takes time, before a guard that renews is ended. */
async function lock(
  config: Config,
  {
    replace,
    wait,
    signal,
    prepare,
  }: Pick<GuardIo, 'replace' | 'wait' | 'signal'> & { prepare(): Promise<void> },
  log: Log,
): Promise<() => Promise<void>> {
  const { runDir } = config
  const running = () => readGuardRecord(runDir, ownIdentity().bootId)
  const takePlaceOf = async (record: GuardRecord | undefined) => {
    if (!record) return false
    await prepare()
    if (!(await endGuard(record, hostClock))) return false
    log.info('took the place of a guard', { pid: record.pid })
    return true
  }
  if (replace) await takePlaceOf(running())
  for (let told = false; ; told = true) {
    try {
      return await lockFolder(guardFolder(runDir), '--run-dir')
    } catch (error) {
      if (!(error instanceof PlasmaError) || error.code !== 'FolderInUse' || !wait) throw error
      const record = running()
      if (record && isOfServer(record, config) && (await takePlaceOf(record))) continue
      if (!told) log.info('waiting for the guard that runs', { ...(record && { pid: record.pid }) })
      await sleep(hostClock, 1_000, signal)
    }
  }
}

/**
 * Whether a server started this guard and told it the same: one that a service manager keeps takes its place. One told
 * something else stays: the server would replace us in turn, for ever. So does one that was waiting itself.
 */
function isOfServer(record: GuardRecord, config: Config): boolean {
  const argv = new Procfs().cmdline(record.pid)
  return record.program === programOf(config) && argv.state === 'present' && !argv.value.includes('--wait')
}

/** Asks the guards of all other members of a lease whether it may be taken; for the leader. */
export function peerVotes(options: {
  readonly kv: Kv
  readonly objects: ObjectStore
  readonly hostName: string
  readonly clock: Clock
}): AskVotes {
  const { kv, objects, hostName: from, clock } = options
  let key: Promise<Buffer> | undefined
  return async (lease, { members }, signal) => {
    const host = hostOfLease(lease.metadata.name) ?? ''
    key ??= clusterKey(kv)
    key.catch(() => {
      key = undefined
    })
    const [secret, { items }] = await Promise.all([key, objects.list(Lease, { namespace: systemNamespace })])
    const addresses = new Map(items.map((one) => [hostOfLease(one.metadata.name), peerOf(one)] as const))
    const question = { ask: 'consent', host, resourceVersion: lease.metadata.resourceVersion ?? '' } as const
    const others = members.filter((name) => name !== host)
    const replies = await Promise.all(
      others.map(async (to) => {
        const address = addresses.get(to)
        if (address === undefined) return { host: to, why: 'its lease names no guard' }
        const ask = { address, to, from, key: secret, timeoutMs: voteMs, clock, signal }
        const reply = await askPeer(question, ask)
        if (!reply) return { host: to, why: `no answer from ${address}` }
        return reply.word === 'yes' ? { host: to } : { host: to, why: reply.why }
      }),
    )
    const refusals = replies.filter((reply): reply is { host: string; why: string } => 'why' in reply)
    return { consents: replies.filter((reply) => !('why' in reply)).map((reply) => reply.host), refusals }
  }
}

import { flushCompileCache } from 'node:module'
import { join } from 'node:path'
import { FailedAttempts } from './auth/attempts.ts'
import { auditFile } from './auth/audit-file.ts'
import { authenticate } from './auth/authenticate.ts'
import { ensureCredentials } from './auth/credentials.ts'
import { bootstrapIdentity } from './auth/identity.ts'
import { Replays } from './auth/replays.ts'
import { type Config, isShared, type Role } from './config.ts'
import { LeaseWatch } from './controllers/hosts/watch.ts'
import { runFenceCommand } from './host/fence-command.ts'
import { checkRunDir } from './host/paths.ts'
import { tellReady } from './host/service-manager.ts'
import { systemClock } from './lib/clock.ts'
import { messageOf } from './lib/errors.ts'
import { ensureFolder, inFolder } from './lib/folders.ts'
import { jsonLog, type Log } from './lib/log.ts'
import type { Meter } from './lib/measures.ts'
import { systemNamespace } from './resources/host-lease.ts'
import { kinds, Namespace, namespaceNamed } from './resources/kinds.ts'
import { FairQueue } from './server/fair.ts'
import { ensurePki } from './server/pki.ts'
import type { Prometheus } from './server/prometheus.ts'
import { createServer, type ServerDeps } from './server/server.ts'
import { ApiError, isReason } from './store/errors.ts'
import { lockFolder } from './store/folder-lock.ts'
import { KvObjects } from './store/kv-objects.ts'
import { meteredKv } from './store/metered.ts'
import type { ObjectStore } from './store/objects.ts'
import { version } from './version.ts'
import { type Agent, startAgent } from './wire-agent.ts'
import { grpcNames, startGrpc } from './wire-grpc.ts'
import { peerVotes } from './wire-guard.ts'
import { leaseTerms } from './wire-guard-settings.ts'
import { type Identities, startIdentities } from './wire-identities.ts'
import { noVotes, requireNoOtherHosts } from './wire-kubernetes.ts'
import { type LeaderOptions, runLeader, type Term } from './wire-leader.ts'
import { limitsOf } from './wire-limits.ts'
import { addressText, listenError } from './wire-listen.ts'
import {
  housekeeping,
  measureCertificates,
  measureStore,
  type ServerMetrics,
  startMetrics,
} from './wire-metrics.ts'
import { openServerStore, type ServerStore } from './wire-store.ts'
import { runTerm } from './wire-term.ts'
import { runTidy } from './wire-tidy.ts'

export interface ServeIo {
  readonly signal: AbortSignal
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown }
}

/** Longest wait for what is under way when the server is told to stop. QEMUs are not part of it. */
const stopDeadlineMs = 5_000
/** After this long the start is over and compiled code is kept for the next one. */
const flushCompiledMs = 3_000

/**
 * Runs a server until the signal is aborted: store, then API, then agent; stopped together. Machines live on.
 * @throws PlasmaError where it can't start: a used folder or port, an unusable run directory, a broken PKI
 */
export async function serve(config: Config, io: ServeIo): Promise<void> {
  try {
    await serveFrom(config, io)
  } catch (error) {
    throw inFolder(error, config.dataDir, '--data-dir')
  }
}

async function serveFrom(config: Config, io: ServeIo): Promise<void> {
  const log = jsonLog(config.logLevel)
  const { dataDir, runDir } = config
  checkRunDir(runDir)
  await ensureFolder(dataDir, '--data-dir')
  await ensureFolder(runDir, '--run-dir')
  // Two servers would take each other's machines for their own.
  const unlock = await lockFolder(runDir, '--run-dir')
  const store = await openServerStore(config, log).catch(async (error: unknown) => {
    await unlock()
    throw error
  })
  const stopping = new AbortController()
  const onAbort = () => stopping.abort(io.signal.reason)
  io.signal.addEventListener('abort', onAbort, { once: true })
  if (io.signal.aborted) onAbort()
  let agent: Agent | undefined
  let server: Awaited<ReturnType<typeof startApi>> | undefined
  let leader: Promise<void> | undefined
  let identities: Identities | undefined
  let cancelFlush = () => {}
  let metrics: ServerMetrics | undefined
  try {
    const runs = (role: Role) => config.roles.includes(role)
    const late = lateAgent(() => agent, runs('agent'))
    const trouble = atMostEvery(storeAnswerGoodMs, () => store.trouble(storeAnswerMs))
    const parts = readiness(trouble, late)
    metrics = await startMetrics(config, parts.ready, log)
    const meter = metrics.prometheus
    const kv = store.kv && meteredKv(store.kv, meter, systemClock)
    const own = kv && new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
    const objects = own ?? store.objects
    if (!objects) throw new Error('a store has objects')
    if (own) await ensureNamespace(objects, 'default')
    if (!isShared(config) && runs('agent')) await requireNoOtherHosts(objects, config.hostName)
    measureStore(trouble, meter)
    // Before the agent: where the port is taken, no machine is touched.
    if (kv && own && runs('api')) {
      const who = { kv, objects: own, dataDir, clock: systemClock, log: log.child({ part: 'identities' }) }
      identities = await startIdentities(who, stopping.signal)
      server = await startApi(config, { objects: own, identities, agent: parts, log, metrics: meter })
    }
    if (runs('agent')) agent = await startAgent(config, objects, log, stopping.signal, meter)
    if (isShared(config) || !runs('agent')) {
      await ensureNamespace(objects, systemNamespace)
      if (runs('controller'))
        leader = startLeader({ config, objects, log, meter, ...(kv && { kv }) }, stopping.signal)
    } else if (kv) leader = runTidy({ kv, objects, log }, stopping.signal)
    io.stdout.write(`plasmavmc ${version} ${servesWhat(config)} (data in ${dataDir})\n`)
    void tellReady(process.env, log)
    // Written at exit otherwise, which a server that is killed never sees.
    cancelFlush = systemClock.after(flushCompiledMs, flushCompileCache)
    await untilAborted(stopping.signal, [agent?.ended, leader, identities?.ended])
  } finally {
    cancelFlush()
    stopping.abort()
    await withinDeadline(
      Promise.allSettled([server?.close(), agent?.stopped, leader, identities?.ended]),
      log,
    )
    io.signal.removeEventListener('abort', onAbort)
    await metrics?.close()
    await store.close()
    await unlock()
  }
}

/**
 * Contends for leadership, and watches meanwhile how long hosts are silent, so that a new leader need not begin to count.
 */
async function startLeader(
  options: Pick<LeaderOptions, 'kv' | 'objects' | 'log'> & { readonly config: Config; readonly meter: Meter },
  signal: AbortSignal,
): Promise<void> {
  const { config, objects, log, meter } = options
  const kv = options.kv && { kv: options.kv }
  const clock = systemClock
  const { hostName, brake: brakePercent } = config
  const watch = new LeaseWatch(objects, clock, log.child({ part: 'hosts' }), meter)
  const votes = kv ? peerVotes({ ...kv, objects, hostName, clock }) : noVotes
  const hosts = { watch, votes, runCommand: runFenceCommand, brakePercent, terms: leaseTerms(config) }
  // Kubernetes, or the server that is joined, tidies its own store.
  const tidy = kv
    ? [({ objects: own, signal: ended }: Term) => runTidy({ ...kv, objects: own, log }, ended)]
    : []
  const parts = [
    (term: Term) => runTerm(term, { hostName, log, hosts, meter }),
    ...tidy,
    ...housekeeping(log, meter, kv !== undefined),
  ]
  await Promise.all([watch.run(signal), runLeader({ config, ...kv, objects, log, parts }, signal)])
}

function servesWhat(config: Config): string {
  if (config.roles.includes('api')) return `serves on https://${addressText(config.listen)}`
  return `runs as ${config.roles.join(' and ')}, without an API`
}

/** Longest wait for a sign of life of the store when it is asked whether this server is ready, ms. */
const storeAnswerMs = 2_000
/** How long an answer to that counts, ms: whoever asks often asks the store no more than this. */
const storeAnswerGoodMs = 1_000

/** What the API, and a probe, ask of the agent, with whether the store answers. */
function readiness(trouble: () => ReturnType<ServerStore['trouble']>, agent: AgentParts) {
  return {
    ...agent,
    ready: async () => {
      const message = await trouble()
      return [
        { name: 'store', ok: message === undefined, ...(message !== undefined && { message }) },
        ...agent.ready(),
      ]
    },
  }
}

/** The work's result, shared by all who ask while it is under way or for `ms` after. */
function atMostEvery<T>(ms: number, work: () => Promise<T>): () => Promise<T> {
  let last: Promise<T> | undefined
  return () => {
    last ??= work().finally(() =>
      systemClock.after(ms, () => {
        last = undefined
      }),
    )
    return last
  }
}

type AgentParts = Pick<Agent, 'ready' | 'consoleOf' | 'vncOf' | 'logOf'>

/** What the API asks of the agent, which starts after it, where this server has one. */
function lateAgent(agent: () => Agent | undefined, expected: boolean): AgentParts {
  const started = () => {
    const one = agent()
    if (one) return one
    if (!expected) {
      const hint =
        'ask the server of the host that the machine runs on; where that has no API, <run-dir>/vms/<uid>/ there has console.sock and qemu.log'
      throw new ApiError('ServiceUnavailable', 'this server runs no machines', {}, { hint })
    }
    throw new ApiError('ServiceUnavailable', 'the server is still starting', { retryAfterSeconds: 1 })
  }
  return {
    ready: () => agent()?.ready() ?? [{ name: 'agent', ok: !expected, message: 'still starting' }],
    consoleOf: async (ref) => started().consoleOf(ref),
    vncOf: async (ref) => started().vncOf(ref),
    logOf: async (ref, bytes) => started().logOf(ref, bytes),
  }
}

/** Who may not make namespaces has had this one made by others: what is written to it tells. */
async function ensureNamespace(objects: ObjectStore, name: string): Promise<void> {
  try {
    await objects.create(Namespace, namespaceNamed(name))
  } catch (error) {
    if (!isReason(error, 'AlreadyExists') && !isReason(error, 'Forbidden')) throw error
  }
}

interface ApiParts {
  readonly objects: KvObjects
  readonly identities: Identities
  readonly agent: ReturnType<typeof readiness>
  readonly log: Log
  readonly metrics: Prometheus
}

async function startApi(config: Config, { objects, identities, agent, log, metrics }: ApiParts) {
  const { dataDir, listen, hostName } = config
  const pki = await ensurePki(join(dataDir, 'pki'), {
    names: [hostName, listen.host, ...grpcNames(config)],
    now: systemClock.now(),
  })
  measureCertificates(pki, metrics)
  const { accessKeyId, secretAccessKey: secret } = ensureCredentials(dataDir)
  const admin = { secret, identity: { ...bootstrapIdentity, accessKeyId } }
  const [attempts, replays] = [new FailedAttempts(config.failedAttempts), new Replays()]
  const limits = limitsOf(config)
  const cluster = await clusterOf(config, objects)
  const file = join(dataDir, 'audit.log')
  const audit = auditFile(file, (error, records) =>
    log.error(records > 0 ? 'audit records are lost' : 'the audit log is not put aside', {
      ...{ file, records, message: messageOf(error) },
    }),
  )
  const deps: ServerDeps = {
    objects,
    kinds,
    authenticate: (request) => {
      const verdict = authenticate(request, {
        secretOf: (id) => (id === accessKeyId ? admin : identities.secretOf(id)),
        now: systemClock.now(),
        region: 'local',
        service: 'plasmavmc',
        attempts,
        replays,
        ...cluster,
      })
      if (verdict.ok) identities.used(verdict.identity)
      return verdict
    },
    authorize: identities.authorize,
    rulesOf: identities.rulesOf,
    objectsFor: identities.objectsFor,
    audit: audit.record,
    log,
    clock: systemClock,
    version,
    ...cluster,
    metrics,
    limits,
    fair: new FairQueue(limits.fair, systemClock),
    tls: { key: pki.key, cert: pki.cert },
    ready: agent.ready,
    consoleOf: agent.consoleOf,
    vncOf: agent.vncOf,
    logOf: agent.logOf,
  }
  const server = createServer(deps)
  let grpc: Awaited<ReturnType<typeof startGrpc>> | undefined
  server.addHook('preClose', async () => grpc?.close())
  server.addHook('onClose', () => audit.close())
  try {
    await server.listen({ host: listen.host, port: listen.port })
  } catch (error) {
    throw listenError('--listen', listen, error)
  }
  try {
    grpc = await startGrpc(config, { ...deps, tls: pki })
  } catch (error) {
    await server.close()
    throw error
  }
  return server
}

/**
 * Which cluster this is, for tokens that are bound to it: the uid of a namespace that is there as long as the store is. One
 * that forgets everything has none.
 */
async function clusterOf({ store }: Config, objects: KvObjects): Promise<{ readonly clusterId?: string }> {
  const { uid } = (await objects.get(Namespace, { name: 'default' })).metadata
  return uid === undefined || store === 'memory' ? {} : { clusterId: uid }
}

/** Resolves when told to stop; rejects when a background part ended by itself, which must end the process. */
function untilAborted(signal: AbortSignal, ended: readonly (Promise<void> | undefined)[]): Promise<void> {
  return Promise.race([
    ...ended.filter((one) => one !== undefined),
    new Promise<void>((resolve) => {
      if (signal.aborted) return resolve()
      signal.addEventListener('abort', () => resolve(), { once: true })
    }),
  ])
}

async function withinDeadline(work: Promise<unknown>, log: Log): Promise<void> {
  let late = false
  await new Promise<void>((resolve) => {
    const cancel = systemClock.after(stopDeadlineMs, () => {
      late = true
      resolve()
    })
    void work.finally(() => {
      cancel()
      resolve()
    })
  })
  if (late) log.warn('stopped without waiting for everything under way')
}

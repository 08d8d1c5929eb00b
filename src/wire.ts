import { appendFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { auditLine } from './auth/audit.ts'
import { authenticate } from './auth/authenticate.ts'
import { allowed } from './auth/authorize.ts'
import { ensureCredentials } from './auth/credentials.ts'
import { bootstrapIdentity } from './auth/identity.ts'
import type { Config } from './config.ts'
import { checkRunDir } from './host/paths.ts'
import { systemClock } from './lib/clock.ts'
import { errnoOf, messageOf, PlasmaError } from './lib/errors.ts'
import { jsonLog, type Log } from './lib/log.ts'
import { apiVersionOf } from './resources/define.ts'
import { kinds, Namespace } from './resources/kinds.ts'
import { ensurePki } from './server/pki.ts'
import { createServer } from './server/server.ts'
import { isReason } from './store/errors.ts'
import type { Kv } from './store/kv.ts'
import { KvObjects } from './store/kv-objects.ts'
import { openLmdb } from './store/lmdb.ts'
import { MemoryKv } from './store/memory.ts'
import type { ObjectStore } from './store/objects.ts'
import { version } from './version.ts'
import { type Agent, startAgent } from './wire-agent.ts'

export interface ServeIo {
  readonly signal: AbortSignal
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown }
}

/** Longest wait for what is under way when the server is told to stop. QEMUs are not part of it. */
const stopDeadlineMs = 5_000

/**
 * Runs a server until the signal is aborted: store, then agent, then API; stopped in reverse. Machines live on.
 * @throws PlasmaError where it can't start: a used folder or port, an unusable run directory, a broken PKI
 */
export async function serve(config: Config, io: ServeIo): Promise<void> {
  const log = jsonLog(config.logLevel)
  const { dataDir, runDir } = config
  checkRunDir(runDir)
  await makeFolder(dataDir, '--data-dir')
  await makeFolder(runDir, '--run-dir')
  const kv = await openStore(config, log)
  const stopping = new AbortController()
  const onAbort = () => stopping.abort(io.signal.reason)
  io.signal.addEventListener('abort', onAbort, { once: true })
  if (io.signal.aborted) onAbort()
  try {
    const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
    await ensureNamespace(objects, 'default')
    const agent = await startAgent(config, objects, log, stopping.signal)
    const server = await startApi(config, objects, agent, log)
    io.stdout.write(`plasmavmc ${version} serves on https://${addressOf(config)} (data in ${dataDir})\n`)
    try {
      await untilAborted(stopping.signal, agent.ended)
    } finally {
      stopping.abort()
      await withinDeadline(Promise.allSettled([server.close(), agent.stopped]), log)
    }
  } finally {
    io.signal.removeEventListener('abort', onAbort)
    await kv.close()
  }
}

function addressOf({ listen }: Config): string {
  return `${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${listen.port}`
}

async function makeFolder(path: string, flag: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
  } catch (error) {
    const hint = `choose another with ${flag}, or make it writable for this user`
    throw new PlasmaError('FolderUnusable', `${path} can't be made: ${messageOf(error)}`, {
      hint,
      cause: error,
    })
  }
}

function openStore(config: Config, log: Log): Promise<Kv> {
  if (config.store === 'memory') return Promise.resolve(new MemoryKv())
  return openLmdb(join(config.dataDir, 'store'), { log })
}

async function ensureNamespace(objects: ObjectStore, name: string): Promise<void> {
  const namespace = { apiVersion: apiVersionOf(Namespace), kind: 'Namespace', metadata: { name }, spec: {} }
  try {
    await objects.create(Namespace, namespace)
  } catch (error) {
    if (!isReason(error, 'AlreadyExists')) throw error
  }
}

async function startApi(config: Config, objects: KvObjects, agent: Agent, log: Log) {
  const { dataDir, listen, hostName } = config
  const pki = await ensurePki(join(dataDir, 'pki'), {
    names: [hostName, listen.host],
    now: systemClock.now(),
  })
  const { accessKeyId, secretAccessKey: secret } = ensureCredentials(dataDir)
  const admin = { secret, identity: bootstrapIdentity }
  const audit = join(dataDir, 'audit.log')
  const server = createServer({
    objects,
    kinds,
    authenticate: (request) =>
      authenticate(request, {
        secretOf: (id) => (id === accessKeyId ? admin : undefined),
        now: systemClock.now(),
        region: 'local',
        service: 'plasmavmc',
      }),
    authorize: allowed,
    audit: (record) => {
      appendFile(audit, auditLine(record), { mode: 0o600 }).catch((error: unknown) =>
        log.error('audit log is not writable', { file: audit, message: messageOf(error) }),
      )
    },
    log,
    clock: systemClock,
    version,
    tls: { key: pki.key, cert: pki.cert },
    ready: agent.ready,
    consoleOf: agent.consoleOf,
    logOf: agent.logOf,
  })
  try {
    await server.listen({ host: listen.host, port: listen.port })
  } catch (error) {
    throw listenError(config, error)
  }
  return server
}

function listenError(config: Config, error: unknown): PlasmaError {
  const address = addressOf(config)
  if (errnoOf(error) === 'EADDRINUSE') {
    const hint = 'another server may run already; choose another address with --listen'
    return new PlasmaError('PortTaken', `${address} is in use`, { hint, cause: error })
  }
  return new PlasmaError('ListenFailed', `can't listen on ${address}: ${messageOf(error)}`, {
    hint: 'see --listen',
    cause: error,
  })
}

/** Resolves when told to stop; rejects when a background part ended by itself, which must end the process. */
function untilAborted(signal: AbortSignal, ended: Promise<never>): Promise<void> {
  return Promise.race([
    ended,
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

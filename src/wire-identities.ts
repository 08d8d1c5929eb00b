import { rmSync, statSync } from 'node:fs'
import { allowed, rulesFor, type Target } from './auth/authorize.ts'
import { amended, defaultClusterRoleBindings, defaultClusterRoles } from './auth/default-roles.ts'
import { GuardedObjects } from './auth/guarded-objects.ts'
import type { Identity, SecretOf } from './auth/identity.ts'
import { KeyRing } from './auth/key-ring.ts'
import { KeySecrets } from './auth/key-secrets.ts'
import { type GrantIndex, indexGrants } from './auth/rules-of.ts'
import { makeSecretsFile, readSecretsFile, secretsPath } from './auth/secrets-file.ts'
import { type Clock, rfc3339, sleep } from './lib/clock.ts'
import { adviceOf, messageOf } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import { AccessKey } from './resources/access-key.ts'
import type { KubeObject, ResourceDefinition } from './resources/define.ts'
import { ClusterRole, ClusterRoleBinding, type PolicyRule, Role, RoleBinding } from './resources/rbac.ts'
import { Informer } from './runtime/informer.ts'
import { isReason } from './store/errors.ts'
import type { Kv } from './store/kv.ts'
import type { TextStore } from './store/objects.ts'

/** Says that secrets of this store were encrypted by some server once: one that has no key file must not make another. */
const markerKey = '/plasmavmc.io/secrets-key'
/** How often the key file is looked at, ms. */
const fileEveryMs = 2_000
/** Longest wait of whoever made a key until this server lets it in, ms. */
const knownWithinMs = 1_000

export interface IdentitiesOptions {
  readonly kv: Kv
  readonly objects: TextStore
  readonly dataDir: string
  readonly clock: Clock
  readonly log: Log
}

/** Who signs with the keys of the store, and what they may do. */
export interface Identities {
  readonly secretOf: SecretOf
  /** A request of theirs was let in. */
  readonly used: (identity: Identity) => void
  readonly authorize: (identity: Identity, verb: string, target: Target) => boolean
  readonly rulesOf: (identity: Identity, namespace?: string) => readonly PolicyRule[]
  /** The store as one of them may use it. */
  readonly objectsFor: (identity: Identity) => TextStore
  /** Rejects where following the store ended by itself; resolves after the signal. */
  readonly ended: Promise<void>
}

/**
 * Follows keys, roles and bindings until the signal is aborted; resolves when all that there are were read, so that
 * nobody is refused for having come too early. Makes the default roles, and the key file of a new store.
 * @throws PlasmaError where secrets.key is there and can't be used; ApiError of the store
 */
export async function startIdentities(options: IdentitiesOptions, signal: AbortSignal): Promise<Identities> {
  const { kv, objects, dataDir, clock, log } = options
  const file = secretsPath(dataDir)
  await ensureSecretsFile(kv, file, log)
  await ensureDefaultRoles(objects)
  const secrets = new KeySecrets({ kv, readKeys: () => readSecretsFile(file) ?? [], clock, log })
  const keys = new Informer(objects, AccessKey, log, clock)
  const grants = followGrants(objects, log, clock)
  const ring = ringOf(keys, secrets, objects, log)
  const running = [secrets, keys, ...grants.informers].map((one) => one.run(signal))
  const ended = Promise.all([...running, followFile(file, secrets, options, signal)]).then(() => {})
  // Whoever waits for it hears of it; until then it is no unhandled rejection.
  ended.catch(() => {})
  const synced = [secrets, keys, ...grants.informers].map((one) => one.whenSynced())
  await Promise.race([Promise.all(synced), ended])
  await secrets.reload()
  const authorize = (who: Identity, verb: string, target: Target) =>
    allowed(who, verb, target, grants.index())
  const rulesOf = (who: Identity, namespace?: string) => rulesFor(who, namespace, grants.index())
  const keeper = {
    keep: (uid: string, secret: string) => secrets.keep(uid, secret),
    forget: (uid: string) => secrets.forget(uid),
    known: (id: string) => untilKnown(id, ring, [keys, secrets], clock),
  }
  return {
    secretOf: ring.secretOf,
    used: ({ accessKeyId }) => accessKeyId !== undefined && ring.used(accessKeyId, clock.now()),
    authorize,
    rulesOf,
    objectsFor: (identity) => {
      const may = (verb: string, target: Target) => authorize(identity, verb, target)
      const rules = (namespace?: string) => rulesOf(identity, namespace)
      return new GuardedObjects(objects, { identity, may, rules }, keeper)
    },
    ended,
  }
}

function ringOf(keys: Informer<AccessKey>, secrets: KeySecrets, objects: TextStore, log: Log): KeyRing {
  const ring = new KeyRing({
    secretOf: (uid) => secrets.secretOf(uid),
    note: async (object, now) => {
      try {
        const status = { ...object.status, lastUsed: rfc3339(now) }
        await objects.updateStatus(AccessKey, { ...object, status })
      } catch (error) {
        // Another server noted it, or the key was changed: it is used again soon.
        if (isReason(error, 'Conflict') || isReason(error, 'NotFound')) return
        log.warn('the last use of an access key is not written', { message: messageOf(error) })
        throw error
      }
    },
  })
  keys.onChange((name, object) => ring.set(name, object))
  return ring
}

/** Roles and bindings, resolved anew with the first question after a change. */
function followGrants(objects: TextStore, log: Log, clock: Clock) {
  let index: GrantIndex | undefined
  const follow = <T extends KubeObject>(kind: ResourceDefinition<T>) => {
    const informer = new Informer<T>(objects, kind, log, clock)
    informer.onChange(() => {
      index = undefined
    })
    return informer
  }
  const [roles, clusterRoles] = [follow(Role), follow(ClusterRole)]
  const [roleBindings, clusterRoleBindings] = [follow(RoleBinding), follow(ClusterRoleBinding)]
  return {
    informers: [roles, clusterRoles, roleBindings, clusterRoleBindings],
    index: () => {
      index ??= indexGrants({
        roles: roles.list(),
        clusterRoles: clusterRoles.list(),
        roleBindings: roleBindings.list(),
        clusterRoleBindings: clusterRoleBindings.list(),
      })
      return index
    },
  }
}

function untilKnown(
  id: string,
  ring: KeyRing,
  sources: readonly { onChange(listener: () => void): () => void }[],
  clock: Clock,
): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      cancel()
      for (const stop of stops) stop()
      resolve()
    }
    const look = () => {
      if (ring.secretOf(id)) done()
    }
    const stops = sources.map((source) => source.onChange(look))
    const cancel = clock.after(knownWithinMs, done)
    look()
  })
}

/** A store's first server makes the key file; every other needs a copy, and says so where it has none. */
async function ensureSecretsFile(kv: Kv, file: string, log: Log): Promise<void> {
  const there = readSecretsFile(file) !== undefined
  const marked = await kv.get(markerKey)
  if (there && marked) return
  if (!there && marked) {
    const hint =
      'copy it from another server, or from a backup, mode 0600; until then only its own admin key is let in'
    log.warn('there is no secrets.key, and the store has secrets of access keys', { file, hint })
    return
  }
  const made = !there && makeSecretsFile(file)
  const won = (await kv.put(markerKey, 'made', 0n)) !== undefined
  if (!won && made) {
    // Another server was quicker: its file is the one. Nothing was encrypted under ours yet.
    rmSync(file)
    await ensureSecretsFile(kv, file, log)
  }
}

async function ensureDefaultRoles(objects: TextStore): Promise<void> {
  for (const wanted of defaultClusterRoles) {
    if (await created(objects, ClusterRole, wanted)) continue
    const next = amended(await objects.get(ClusterRole, wanted.metadata), wanted)
    // Another server may do the same at this moment.
    if (next) await objects.update(ClusterRole, next).catch(unlessReason('Conflict'))
  }
  for (const wanted of defaultClusterRoleBindings) await created(objects, ClusterRoleBinding, wanted)
}

async function created<T extends KubeObject>(objects: TextStore, kind: ResourceDefinition<T>, object: T) {
  try {
    await objects.create(kind, object)
    return true
  } catch (error) {
    if (isReason(error, 'AlreadyExists')) return false
    throw error
  }
}

const unlessReason = (reason: 'Conflict') => (error: unknown) => {
  if (!isReason(error, reason)) throw error
}

/** Takes the key file anew whenever it changes, so that keys are rotated without a restart. */
async function followFile(
  file: string,
  secrets: KeySecrets,
  { clock, log }: IdentitiesOptions,
  signal: AbortSignal,
): Promise<void> {
  let seen = stampOf(file)
  while (!signal.aborted) {
    await sleep(clock, fileEveryMs, signal).catch(() => {})
    const now = stampOf(file)
    if (signal.aborted || now === seen) continue
    seen = now
    try {
      await secrets.reload()
      log.info('secrets.key was read anew', { file })
    } catch (error) {
      log.error('secrets.key cannot be used; the keys of before stay in use', { message: adviceOf(error) })
    }
  }
}

function stampOf(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat ? `${stat.ino} ${stat.size} ${stat.mtimeMs}` : ''
}

import { randomUUID } from 'node:crypto'
import { AccessKey, accessKeyId } from '../resources/access-key.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { same } from '../resources/parse.ts'
import { ClusterRole, ClusterRoleBinding, type PolicyRule, Role, RoleBinding } from '../resources/rbac.ts'
import { ApiError, isReason } from '../store/errors.ts'
import type { KvCondition } from '../store/kv.ts'
import type {
  DeleteOptions,
  ListOptions,
  ObjectList,
  Ref,
  TextEvent,
  TextStore,
  TextWatchOptions,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from '../store/objects.ts'
import { retryOnConflict } from '../store/retry.ts'
import { detailsOf, invalid, nameIn } from '../store/validate.ts'
import { type AgentWrite, agentHost, agentRefusal } from './agent.ts'
import { generateCredentials } from './credentials.ts'
import {
  bindingEscalation,
  type Caller,
  type Escalation,
  granting,
  grantsTheSame,
  keyEscalation,
  roleEscalation,
} from './escalation.ts'
import { mastersGroup } from './identity.ts'

/** How often a key is made anew whose secret was touched before it was there. */
const createTries = 3

/** What is done with the secrets of keys that come and go. */
export interface SecretKeeper {
  /** Keeps the secret of a key's uid. @returns what must hold while the key is made @throws ApiError */
  keep(uid: string, secret: string): Promise<KvCondition>
  forget(uid: string): Promise<void>
  /** Resolves when this server lets in who signs with the key, or after a short while. */
  known(accessKeyId: string): Promise<void>
}

/**
 * The store as one sender of requests may use it: nobody grants what they don't have, whatever request they put it
 * in, and a key that is made gets its secret. Every write of the API goes through here.
 */
export class GuardedObjects implements TextStore {
  readonly #objects: TextStore
  readonly #caller: Caller
  readonly #secrets: SecretKeeper
  /** The host whose agent this is, if it is one. Members of system:masters are bound by nothing. */
  readonly #agentOf: string | undefined

  constructor(objects: TextStore, caller: Caller, secrets: SecretKeeper) {
    this.#objects = objects
    this.#caller = caller
    this.#secrets = secrets
    const { groups } = caller.identity
    this.#agentOf = groups.includes(mastersGroup) ? undefined : agentHost(caller.identity)
  }

  get<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    return this.#objects.get(kind, ref)
  }

  getStored<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    return this.#objects.getStored(kind, ref)
  }

  list<T extends KubeObject>(kind: ResourceDefinition<T>, options?: ListOptions): Promise<ObjectList<T>> {
    return this.#objects.list(kind, options)
  }

  listText(kind: ResourceDefinition, options?: ListOptions): Promise<ObjectList<string>> {
    return this.#objects.listText(kind, options)
  }

  watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>> {
    return this.#objects.watch(kind, options)
  }

  watchText(kind: ResourceDefinition, options: TextWatchOptions): AsyncIterable<TextEvent> {
    return this.#objects.watchText(kind, options)
  }

  async updateStatus<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    if (this.#agentOf === undefined) return this.#objects.updateStatus(kind, object, options)
    const { before, pinned } = await this.#pinned(kind, object)
    const after = await this.#objects.updateStatus(kind, pinned, { ...options, dryRun: true })
    this.#refuseAgent({ kind, before, after, status: true })
    return options.dryRun ? after : this.#objects.updateStatus(kind, pinned, options)
  }

  async create<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    this.#refuseCreate(kind, object)
    if (!grants(kind)) return this.#objects.create(kind, object, options)
    const named = isKey(kind) ? withKeyName(object) : object
    // What is checked is what would be stored, defaults applied; what is not valid is refused here.
    const checked = await this.#objects.create(kind, named, { ...options, dryRun: true })
    await this.#refuseEscalation(kind, checked)
    if (!isKey(kind) || options.dryRun) {
      return options.dryRun ? checked : this.#objects.create(kind, named, options)
    }
    return this.#createKey(kind, named, options)
  }

  async #createKey<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions,
  ): Promise<T> {
    // A conflict: its secret was encrypted anew, or forgotten because this took too long.
    return retryOnConflict(() => this.#createKeyOnce(kind, object, options), createTries)
  }

  async #createKeyOnce<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions,
  ): Promise<T> {
    const uid = randomUUID()
    const { secretAccessKey } = generateCredentials()
    // First: a secret without a key is of no use to anybody, a key without a secret would be a riddle.
    const provided = await this.#secrets.keep(uid, secretAccessKey)
    try {
      const metadata = { ...object.metadata, uid }
      const withUid = { ...options, restoreUid: true, provided }
      const created = await this.#objects.create(kind, { ...object, metadata }, withUid)
      const id = accessKeyId(created.metadata.name)
      await this.#secrets.known(id)
      return { ...created, status: { accessKeyId: id, secretAccessKey } }
    } catch (error) {
      await this.#secrets.forget(uid).catch(() => {})
      throw error
    }
  }

  async update<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    if (!grants(kind) && this.#agentOf === undefined) return this.#objects.update(kind, object, options)
    const { before, pinned } = await this.#pinned(kind, object)
    const checked = await this.#objects.update(kind, pinned, { ...options, dryRun: true })
    this.#refuseAgent({ kind, before, after: checked, status: false })
    refuseOtherRole(kind, before, checked)
    if (grants(kind) && !grantsTheSame(before, checked)) await this.#refuseEscalation(kind, checked)
    if (options.dryRun) return checked
    const updated = await this.#objects.update(kind, pinned, options)
    const { deletionTimestamp, finalizers, uid } = updated.metadata
    if (isKey(kind) && deletionTimestamp !== undefined && !finalizers?.length) await this.#forget(uid)
    return updated
  }

  async delete<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    ref: Ref,
    options: DeleteOptions = {},
  ): Promise<T> {
    if (this.#agentOf !== undefined) {
      const before = await this.#objects.get(kind, ref)
      this.#refuseAgent({ kind, before, status: false })
    }
    const object = await this.#objects.delete(kind, ref, options)
    const { finalizers, uid } = object.metadata
    if (isKey(kind) && !options.dryRun && !finalizers?.length) await this.#forget(uid)
    return object
  }

  /** What is there, and the write that is made of that version alone: of another, nothing was checked. */
  async #pinned<T extends KubeObject>(kind: ResourceDefinition<T>, object: T) {
    const before = await this.#objects.get(kind, object.metadata)
    const resourceVersion = object.metadata.resourceVersion ?? before.metadata.resourceVersion
    const metadata = { ...object.metadata, ...(resourceVersion !== undefined && { resourceVersion }) }
    return { before, pinned: { ...object, metadata } }
  }

  /** An apply makes what is not there, and the verb of its request says nothing of that. @throws ApiError Forbidden */
  #refuseCreate(kind: ResourceDefinition, object: KubeObject): void {
    const { name, namespace } = object.metadata
    const target = {
      ...{ group: kind.group, resource: kind.plural },
      ...(name && { name }),
      ...(namespace !== undefined && { namespace }),
    }
    if (!this.#caller.may('create', target))
      throw forbidden(kind, name, `User ${JSON.stringify(this.#caller.identity.name)} cannot create it`)
    this.#refuseAgent({ kind, after: object, status: false })
  }

  /** @throws ApiError Forbidden where an agent reaches beyond its host */
  #refuseAgent(write: AgentWrite): void {
    const why = this.#agentOf === undefined ? undefined : agentRefusal(this.#agentOf, write)
    if (why !== undefined)
      throw forbidden(write.kind, (write.after ?? write.before)?.metadata.name ?? '', why)
  }

  /** The key is gone, whatever becomes of its secret: nobody can use that. */
  async #forget(uid: string | undefined): Promise<void> {
    if (uid !== undefined) await this.#secrets.forget(uid).catch(() => {})
  }

  async #refuseEscalation(kind: ResourceDefinition, object: KubeObject): Promise<void> {
    const why = await this.#escalation(kind, object)
    if (why !== undefined) throw forbidden(kind, object.metadata.name, why)
  }

  async #escalation(kind: ResourceDefinition, object: KubeObject): Promise<Escalation> {
    if (isKey(kind)) return keyEscalation(this.#caller, object as AccessKey)
    if (kind === (Role as ResourceDefinition) || kind === (ClusterRole as ResourceDefinition))
      return roleEscalation(this.#caller, kind, object as Role | ClusterRole)
    const binding = object as RoleBinding | ClusterRoleBinding
    const rules = await this.#rulesBound(binding)
    if (rules) return bindingEscalation(this.#caller, binding, rules)
    // Who may bind it whatever it allows, may do so before it is there.
    const anything = [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }]
    const why = bindingEscalation(this.#caller, binding, anything)
    return why && `${binding.roleRef.kind} "${binding.roleRef.name}" not found`
  }

  /** What the role of a binding allows; undefined where there is no such role. */
  async #rulesBound({ roleRef, metadata }: RoleBinding | ClusterRoleBinding) {
    const reading: Promise<{ readonly rules: readonly PolicyRule[] }> =
      roleRef.kind === 'Role'
        ? this.#objects.get(Role, { name: roleRef.name, namespace: metadata.namespace ?? '' })
        : this.#objects.get(ClusterRole, { name: roleRef.name })
    try {
      return (await reading).rules
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }
}

function forbidden(kind: ResourceDefinition, name: string, why: string): ApiError {
  return new ApiError('Forbidden', `${nameIn(kind, name)} is forbidden: ${why}`, detailsOf(kind, name))
}

const isKey = (kind: ResourceDefinition) => kind === (AccessKey as ResourceDefinition)
const grants = (kind: ResourceDefinition) => granting.includes(kind)

/** A key whose name nobody chose gets one that nobody guesses; a prefix would make it no better. */
function withKeyName<T extends KubeObject>(object: T): T {
  if (object.metadata.name) return object
  const { generateName: _, ...metadata } = object.metadata
  const name = generateCredentials().accessKeyId.toLowerCase()
  return { ...object, metadata: { ...metadata, name } }
}

/** As in Kubernetes: a binding that is looked at once must not come to mean something else. @throws ApiError Invalid */
function refuseOtherRole(kind: ResourceDefinition, before: KubeObject, after: KubeObject): void {
  if (kind !== (RoleBinding as ResourceDefinition) && kind !== (ClusterRoleBinding as ResourceDefinition))
    return
  const [was, is] = [before, after].map((one) => (one as RoleBinding).roleRef)
  if (same(was, is)) return
  const message = `Invalid value: ${JSON.stringify(is)}: cannot change roleRef`
  throw invalid(kind, after.metadata.name, [{ reason: 'FieldValueInvalid', field: 'roleRef', message }])
}

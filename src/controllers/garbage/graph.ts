import { apiVersionOf, type OwnerReference, type ResourceDefinition } from '../../resources/define.ts'
import type { Ref } from '../../store/objects.ts'
import type { Kin, KinEvent } from '../../store/ownership.ts'

/** Names one object of any kind. */
export interface Place {
  readonly kind: ResourceDefinition
  readonly ref: Ref
}

/** `plural.group namespace/name`: the key of the queue. */
export function keyOf({ kind, ref }: Place): string {
  const { name, namespace } = ref
  return `${kind.plural}.${kind.group} ${namespace === undefined ? '' : `${namespace}/`}${name}`
}

/** The reverse of `keyOf`; undefined for a kind that is not among these. */
export function placeOf(key: string, kinds: readonly ResourceDefinition[]): Place | undefined {
  const [head = '', tail = ''] = key.split(' ')
  const kind = kinds.find((one) => `${one.plural}.${one.group}` === head)
  const slash = tail.indexOf('/')
  const ref = slash < 0 ? { name: tail } : { namespace: tail.slice(0, slash), name: tail.slice(slash + 1) }
  return kind && { kind, ref }
}

/** The kind that a reference means; undefined where it is none of these. */
export function kindOf(owner: OwnerReference, kinds: readonly ResourceDefinition[]) {
  return kinds.find((kind) => apiVersionOf(kind) === owner.apiVersion && kind.kind === owner.kind)
}

/** Where an owner is, seen from what it owns; undefined where it can't be told. */
export function ownerPlace(
  owner: OwnerReference,
  { kind, ref }: Place,
  kinds: readonly ResourceDefinition[],
): Place | undefined {
  const owners = kindOf(owner, kinds)
  // What is in no namespace can't tell in which its owner is.
  if (!owners || (owners.namespaced && !kind.namespaced)) return undefined
  const { namespace } = ref
  const within = owners.namespaced && namespace !== undefined ? { namespace } : {}
  return { kind: owners, ref: { name: owner.name, ...within } }
}

/**
 * Who names whom as owner, as far as it has been heard. It may lag: it says what to look at, and nothing is deleted on its
 * word.
 */
export class Graph {
  readonly #kinds: readonly ResourceDefinition[]
  readonly #add: (key: string) => void
  /** What is known of each object that has owners or waits for what it owns, by key. */
  readonly #known = new Map<string, Kin>()
  /** Keys of the dependents by the uid of an owner. */
  readonly #dependents = new Map<string, Set<string>>()
  readonly #synced = new Set<ResourceDefinition>()

  /** @param add puts the key of an object that is to be looked at into the queue */
  constructor(kinds: readonly ResourceDefinition[], add: (key: string) => void) {
    this.#kinds = kinds
    this.#add = add
  }

  /** Whether every kind has been listed once: before that, absence here means nothing. */
  get synced(): boolean {
    return this.#synced.size === this.#kinds.length
  }

  /** What names an object as its owner, by key. */
  dependents(uid: string): readonly (readonly [key: string, kin: Kin])[] {
    return [...(this.#dependents.get(uid) ?? [])].flatMap((key) => {
      const kin = this.#known.get(key)
      return kin ? [[key, kin] as const] : []
    })
  }

  hear(kind: ResourceDefinition, event: KinEvent): void {
    if (event.type === 'CHANGED') this.#set(kind, event.kin)
    else if (event.type === 'GONE') this.#gone(kind, event.ref, event.uid)
    else {
      const keys = new Set(event.kin.map(({ ref }) => keyOf({ kind, ref })))
      const head = keyOf({ kind, ref: { name: '' } })
      for (const [key, { ref, uid }] of [...this.#known])
        if (key.startsWith(head) && !keys.has(key)) this.#gone(kind, ref, uid)
      for (const kin of event.kin) this.#set(kind, kin)
      this.#synced.add(kind)
      // Owners of this kind may have gone unheard.
      this.lookAtAll()
    }
  }

  /** Puts all that has an owner, or waits for what it owns, into the queue. */
  lookAtAll(): void {
    for (const key of this.#known.keys()) this.#add(key)
  }

  #set(kind: ResourceDefinition, kin: Kin): void {
    const key = keyOf({ kind, ref: kin.ref })
    const before = this.#known.get(key)
    this.#forget(key)
    if (before && before.uid !== kin.uid) this.#lookAtDependents(before.uid)
    this.#lookAtOwners(kind, before)
    if (kin.owners.length === 0 && !kin.foreground && !kin.orphaning) return
    this.#known.set(key, kin)
    for (const { uid } of kin.owners) {
      const keys = this.#dependents.get(uid) ?? new Set()
      this.#dependents.set(uid, keys.add(key))
    }
    this.#add(key)
  }

  #gone(kind: ResourceDefinition, ref: Ref, uid: string): void {
    const key = keyOf({ kind, ref })
    const before = this.#known.get(key)
    this.#forget(key)
    this.#lookAtDependents(uid)
    this.#lookAtOwners(kind, before)
  }

  #forget(key: string): void {
    for (const { uid } of this.#known.get(key)?.owners ?? []) {
      const keys = this.#dependents.get(uid)
      keys?.delete(key)
      if (keys?.size === 0) this.#dependents.delete(uid)
    }
    this.#known.delete(key)
  }

  #lookAtDependents(uid: string): void {
    for (const key of this.#dependents.get(uid) ?? []) this.#add(key)
  }

  /** One that waits for what it owns may have waited for this. */
  #lookAtOwners(kind: ResourceDefinition, kin: Kin | undefined): void {
    for (const owner of kin?.owners ?? []) {
      const place = ownerPlace(owner, { kind, ref: kin?.ref ?? { name: '' } }, this.#kinds)
      if (place) this.#add(keyOf(place))
    }
  }
}

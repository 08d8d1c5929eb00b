import { type AccessKey as AccessKeyObject, accessKeyId } from '../resources/access-key.ts'
import { misunderstood } from '../resources/understood.ts'
import { type AccessKey, authenticatedGroup, type SecretOf } from './identity.ts'

/** How often the last use of a key is written at most, ms. */
export const lastUsedEveryMs = 3_600_000
/** When it is tried again after that failed, ms. */
const retryMs = 60_000

interface Held {
  readonly object: AccessKeyObject
  readonly key: Omit<AccessKey, 'secret'>
  /** Wall milliseconds before which no use is written. */
  quietUntil: number
}

export interface KeyRingOptions {
  /** The secret of a key's uid. */
  readonly secretOf: (uid: string) => string | undefined
  /** Writes the last use of a key into its status. */
  readonly note: (object: AccessKeyObject, now: number) => Promise<void>
}

/** The access keys as the store has them, by the id that requests name. */
export class KeyRing {
  readonly #held = new Map<string, Held>()
  readonly #options: KeyRingOptions

  constructor(options: KeyRingOptions) {
    this.#options = options
  }

  /** The key of that name is now this, or is gone. */
  set(name: string, object: AccessKeyObject | undefined): void {
    const id = accessKeyId(name)
    if (!object) return void this.#held.delete(id)
    const before = this.#held.get(id)
    const used = Date.parse(object.status?.lastUsed ?? '')
    const written = Number.isNaN(used) ? 0 : used + lastUsedEveryMs
    const kept = before?.object.metadata.uid === object.metadata.uid ? (before?.quietUntil ?? 0) : 0
    this.#held.set(id, { object, key: keyOf(id, object), quietUntil: Math.max(written, kept) })
  }

  readonly secretOf: SecretOf = (id) => {
    const held = this.#held.get(id)
    const secret = held && this.#options.secretOf(held.object.metadata.uid ?? '')
    return held && secret !== undefined ? { ...held.key, secret } : undefined
  }

  /** A request was signed with it at that wall time, ms: written now and then. Never throws, never waits. */
  used(id: string, now: number): void {
    const held = this.#held.get(id)
    if (!held || now < held.quietUntil) return
    held.quietUntil = now + lastUsedEveryMs
    this.#options.note(held.object, now).catch(() => {
      held.quietUntil = now + retryMs
    })
  }
}

/** What this version does not understand of a key may be what it is refused for: such a key is refused. */
function keyOf(id: string, object: AccessKeyObject): Omit<AccessKey, 'secret'> {
  const { spec, metadata } = object
  const expiresAt = spec.expiresAt === undefined ? undefined : Date.parse(spec.expiresAt)
  const refused =
    spec.disabled || metadata.deletionTimestamp !== undefined || misunderstood(object) !== undefined
  const groups = [...new Set([...spec.groups, authenticatedGroup])]
  return {
    identity: { name: spec.user, groups, accessKeyId: id },
    ...(refused && { disabled: true }),
    ...(expiresAt !== undefined && { expiresAt }),
  }
}

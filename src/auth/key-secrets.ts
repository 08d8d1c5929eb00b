import { type Clock, sleep } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { ApiError } from '../store/errors.ts'
import type { Kv, KvCondition, KvEntry } from '../store/kv.ts'
import { type Sealed, type SealingKey, seal, unseal } from './seal.ts'

/** Where the secrets of access keys are kept, by the uid of the key: beside the objects, under no kind that is served. */
export const secretsPrefix = '/plasmavmc.io/access-key-secrets/'

const retryBaseMs = 50
const retryCapMs = 5_000

export interface KeySecretsOptions {
  readonly kv: Kv
  /** The keys of the file as it is now; none where there is no file. */
  readonly readKeys: () => readonly SealingKey[]
  readonly clock: Clock
  readonly log: Log
}

/** The secrets of all access keys, decrypted, as the store has them. The secret of a uid never changes. */
export class KeySecrets {
  readonly #options: KeySecretsOptions
  readonly #entries = new Map<string, KvEntry>()
  readonly #plain = new Map<string, string>()
  readonly #firstSync = Promise.withResolvers<void>()
  readonly #listeners = new Set<() => void>()
  #keys: readonly SealingKey[]

  constructor(options: KeySecretsOptions) {
    this.#options = options
    this.#keys = options.readKeys()
  }

  /** Resolves when all that there are were read once. */
  whenSynced(): Promise<void> {
    return this.#firstSync.promise
  }

  secretOf(uid: string): string | undefined {
    return this.#plain.get(uid)
  }

  /** Told when any of them came or went. @returns unsubscribe */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Keeps the secret of a new key, which must be made only while what is returned holds: a secret without a key is
   * forgotten some time (`orphan-secrets.ts`).
   * @throws ApiError ServiceUnavailable where there is no key to encrypt it under, or no store
   */
  async keep(uid: string, secret: string): Promise<KvCondition> {
    const [key] = this.#keys
    if (!key) {
      throw new ApiError(
        'ServiceUnavailable',
        'this server has no secrets.key to encrypt secrets with',
        {},
        {
          hint: 'copy secrets.key into its data directory from a server that has it, mode 0600',
        },
      )
    }
    const at = secretsPrefix + uid
    const revision = await this.#options.kv.put(at, JSON.stringify(seal(key, secret, uid)), 0n)
    if (revision === undefined) throw new ApiError('AlreadyExists', `there is a secret of ${uid} already`)
    return { key: at, revision }
  }

  /** Forgets the secret of a key that is gone; where there is none, that is no error. */
  async forget(uid: string): Promise<void> {
    for (;;) {
      const entry = await this.#options.kv.get(secretsPrefix + uid)
      if (!entry || (await this.#options.kv.delete(entry.key, entry.revision)) !== undefined) return
    }
  }

  /**
   * Takes the key file as it is now: what could not be read may be now, and what is under another key than the first is
   * encrypted anew, so that the others can go.
   * @throws what reading the file throws; what was known before stays in use
   */
  async reload(): Promise<void> {
    this.#keys = this.#options.readKeys()
    for (const entry of this.#entries.values()) this.#take(entry)
    await this.#sealAnew()
  }

  async #sealAnew(): Promise<void> {
    const [first] = this.#keys
    if (!first) return
    let done = 0
    for (const { key, value, revision } of [...this.#entries.values()]) {
      const uid = uidOf(key)
      const secret = this.#plain.get(uid)
      if (secret === undefined || parse(value)?.keyId === first.id) continue
      // Another server may have done it, or the key be gone: both are fine.
      const written = await this.#options.kv.put(key, JSON.stringify(seal(first, secret, uid)), revision)
      if (written !== undefined) done += 1
    }
    if (done > 0) this.#options.log.info('secrets are encrypted anew', { secrets: done, key: first.id })
  }

  /** Follows the store until the signal is aborted; failures of the store are retried with capped back-off. */
  async run(signal: AbortSignal): Promise<void> {
    const { kv, clock, log } = this.#options
    for (let failures = 0; !signal.aborted; failures += 1) {
      try {
        const { entries, revision } = await kv.list(secretsPrefix)
        this.#replace(entries)
        for await (const event of kv.watch(secretsPrefix, revision, signal)) {
          failures = 0
          if (event.type === 'put') this.#take(event)
          else this.#drop(event.key)
          this.#tell()
        }
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof ApiError)) throw error
        log.debug('secrets of access keys are read anew', { message: messageOf(error) })
      }
      const delay = Math.min(retryCapMs, retryBaseMs * 2 ** Math.min(failures, 10))
      await sleep(clock, delay, signal).catch(() => {})
    }
  }

  #replace(entries: readonly KvEntry[]): void {
    const fresh = new Set(entries.map(({ key }) => key))
    for (const { key } of [...this.#entries.values()]) if (!fresh.has(key)) this.#drop(key)
    for (const entry of entries) this.#take(entry)
    this.#firstSync.resolve()
    this.#tell()
  }

  #take({ key, value, revision }: KvEntry): void {
    const uid = uidOf(key)
    this.#entries.set(uid, { key, value, revision })
    const sealed = parse(value)
    const secret = sealed && unseal(this.#keys, sealed, uid)
    if (secret !== undefined) this.#plain.set(uid, secret)
    else if (!this.#plain.has(uid)) {
      const hint = 'secrets.key must be the same on every server, and have every key that is in use'
      this.#options.log.warn('the secret of an access key cannot be decrypted', {
        uid,
        key: sealed?.keyId,
        hint,
      })
    }
  }

  #drop(key: string): void {
    this.#entries.delete(uidOf(key))
    this.#plain.delete(uidOf(key))
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }
}

const uidOf = (key: string) => key.slice(secretsPrefix.length)

function parse(value: string): Sealed | undefined {
  try {
    const { keyId, nonce, data } = JSON.parse(value) as Partial<Sealed>
    return keyId === undefined || nonce === undefined || data === undefined
      ? undefined
      : { keyId, nonce, data }
  } catch {
    return undefined
  }
}

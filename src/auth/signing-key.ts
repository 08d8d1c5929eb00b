import { type HmacKey, hmacKey, hmacSha256 } from './hash.ts'
import type { Scope } from './scope.ts'

/** Secrets of which derived keys are kept, and how many keys of each: a key changes once a day. */
const maxSecrets = 1024
const maxOfOne = 4

type Derived = readonly [scope: Scope, key: HmacKey]

const cache = new Map<string, Derived[]>()
let derived = 0

/** How many keys were derived so far. */
export const derivations = (): number => derived

/** The work of deriving a key, for nothing: for whoever must not show by its time that a key was at hand. */
export function deriveForNothing(): void {
  signingKeyBytes('nobody0000000000000000000000000000000000', {
    ...{ date: '20150830', region: 'local', service: 'plasmavmc' },
  })
}

/** The signing key of a secret for a scope (SigV4, "Derive a signing key"); remembered, the oldest goes first. */
export function signingKey(secret: string, scope: Scope): HmacKey {
  const { date, region, service } = scope
  const kept = cache.get(secret) ?? []
  for (const [other, key] of kept)
    if (other.date === date && other.service === service && other.region === region) return key
  const key = hmacKey(signingKeyBytes(secret, scope))
  if (kept.length === 0 && cache.size >= maxSecrets) cache.delete(cache.keys().next().value ?? '')
  cache.set(secret, [...kept.slice(1 - maxOfOne), [{ date, region, service }, key]])
  return key
}

/** The same key as its 32 bytes. */
export function signingKeyBytes(secret: string, { date, region, service }: Scope): Buffer {
  derived += 1
  const parts = [date, region, service, 'aws4_request']
  return parts.reduce<Buffer>((key, part) => hmacSha256(hmacKey(key), part), Buffer.from(`AWS4${secret}`))
}

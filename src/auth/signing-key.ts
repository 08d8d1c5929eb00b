import { createSecretKey, type KeyObject } from 'node:crypto'
import { hmacSha256 } from './hash.ts'
import type { Scope } from './scope.ts'

/** Derived keys kept; a key changes once a day, so a server holds one for each access key in use. */
const maxCached = 1024

const cache = new Map<string, KeyObject>()
let derived = 0

/** How many keys were derived so far. */
export const derivations = (): number => derived

/** The work of deriving a key, for nothing: for whoever must not show by its time that a key was at hand. */
export function deriveForNothing(): void {
  derive('nobody0000000000000000000000000000000000', ['20150830', 'local', 'plasmavmc', 'aws4_request'])
}

/** The signing key of a secret for a scope (SigV4, "Derive a signing key"); remembered, least recently used goes first. */
export function signingKey(secret: string, { date, region, service }: Scope): KeyObject {
  const name = `${date}\0${region}\0${service}\0${secret}`
  const known = cache.get(name)
  const key = known ?? derive(secret, [date, region, service, 'aws4_request'])
  if (known) cache.delete(name)
  else if (cache.size >= maxCached) cache.delete(cache.keys().next().value!)
  cache.set(name, key)
  return key
}

function derive(secret: string, parts: readonly string[]): KeyObject {
  derived += 1
  return createSecretKey(parts.reduce<Buffer>(hmacSha256, Buffer.from(`AWS4${secret}`)))
}

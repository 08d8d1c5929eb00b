import { sha256Hex } from '../../src/auth/hash.ts'
import type { AccessKey } from '../../src/auth/identity.ts'
import { signRequest } from '../../src/auth/sign.ts'
import type { SignedRequest, VerifyOptions } from '../../src/auth/verify.ts'

export const now = Date.UTC(2026, 0, 2, 3, 4, 5)
export const credentials = {
  accessKeyId: 'PVMCAAAAAAAAAAAAAAAA',
  secretAccessKey: 'secret/of+forty+characters/0123456789abcd',
}
export const identity = { name: 'admin', groups: ['system:masters'] }

/** Options of a server that knows one key. */
export function options(key: Partial<AccessKey> = {}): VerifyOptions {
  const known = { secret: credentials.secretAccessKey, identity, ...key }
  return {
    secretOf: (id) => (id === credentials.accessKeyId ? known : undefined),
    now,
    region: 'local',
    service: 'plasmavmc',
  }
}

/** A request as a server gets it, signed by us. */
export function signed(
  change: {
    method?: string
    rawUrl?: string
    body?: string
    headers?: Record<string, string>
    accessKeyId?: string
    secretAccessKey?: string
    now?: number
  } = {},
): SignedRequest & { headers: Record<string, string> } {
  const { method = 'POST', rawUrl = '/apis/x?b=2&a=1', body = '{"a":1}', headers = {} } = change
  const key = { ...credentials, ...change }
  const url = new URL(`https://127.0.0.1:7443${rawUrl}`)
  const scope = { now: change.now ?? now, region: 'local', service: 'plasmavmc' }
  const all = signRequest({ method, url, headers, body, credentials: key, ...scope })
  return { method, rawUrl, headers: all, bodySha256: sha256Hex(body) }
}

/** Every text that differs from `text` in one bit of one byte. */
export function* bitFlips(text: string): Generator<string> {
  const bytes = Buffer.from(text, 'latin1')
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = Buffer.from(bytes)
    changed[bit >> 3]! ^= 1 << (bit & 7)
    yield changed.toString('latin1')
  }
}

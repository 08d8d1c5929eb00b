import { hash } from 'node:crypto'

/** Lower-case hexadecimal SHA-256; text as UTF-8. */
export function sha256Hex(data: string | Uint8Array): string {
  return hash('sha256', data, 'hex')
}

const blockBytes = 64
const hashBytes = 32

/** A key of HMAC-SHA256 that is used again and again: its two padded blocks (RFC 2104 section 2). */
export interface HmacKey {
  readonly inner: Buffer
  readonly outer: Buffer
}

/** Prepares a key of any length; text as UTF-8. */
export function hmacKey(key: string | Uint8Array): HmacKey {
  const bytes = Buffer.from(typeof key === 'string' ? Buffer.from(key, 'utf8') : key)
  const short = bytes.length > blockBytes ? hash('sha256', bytes, 'buffer') : bytes
  const padded = (pad: number) =>
    Buffer.from(Array.from({ length: blockBytes }, (_, i) => (short[i] ?? 0) ^ pad))
  return { inner: padded(0x36), outer: padded(0x5c) }
}

/**
 * HMAC-SHA256 (RFC 2104) of a text as UTF-8. By two one-shot hashes: an Hmac object costs more than both together, and
 * every request needs one.
 */
export function hmacSha256({ inner, outer }: HmacKey, data: string): Buffer {
  const first = Buffer.allocUnsafe(blockBytes + Buffer.byteLength(data))
  inner.copy(first)
  first.write(data, blockBytes, 'utf8')
  const second = Buffer.allocUnsafe(blockBytes + hashBytes)
  outer.copy(second)
  hash('sha256', first, 'buffer').copy(second, blockBytes)
  return hash('sha256', second, 'buffer')
}

/** SHA-256 of a request without a body. */
export const emptySha256 = sha256Hex('')

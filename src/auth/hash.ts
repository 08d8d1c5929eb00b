import { createHmac, hash, type KeyObject } from 'node:crypto'

/** Lower-case hexadecimal SHA-256; text as UTF-8. */
export function sha256Hex(data: string | Uint8Array): string {
  return hash('sha256', data, 'hex')
}

/** HMAC-SHA256 (RFC 2104); text as UTF-8. A key that is used again is quicker as a KeyObject. */
export function hmacSha256(key: string | Uint8Array | KeyObject, data: string): Buffer {
  return createHmac('sha256', key).update(data, 'utf8').digest()
}

/** SHA-256 of a request without a body. */
export const emptySha256 = sha256Hex('')

import { createHash, createHmac } from 'node:crypto'

/** Lower-case hexadecimal SHA-256; text as UTF-8. */
export function sha256Hex(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex')
}

/** HMAC-SHA256 (RFC 2104); text as UTF-8. */
export function hmacSha256(key: string | Uint8Array, data: string): Buffer {
  return createHmac('sha256', key).update(data, 'utf8').digest()
}

/** SHA-256 of a request without a body. */
export const emptySha256 = sha256Hex('')

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'

/** A key of the key file. */
export interface SealingKey {
  readonly id: string
  /** 32 bytes. */
  readonly bytes: Uint8Array
}

/** A secret as it is kept: which key it is under, and the ciphertext with its tag, in base64. */
export interface Sealed {
  readonly keyId: string
  readonly nonce: string
  readonly data: string
}

const nonceBytes = 12
const tagBytes = 16

/**
 * Encrypts with AES-256-GCM (NIST SP 800-38D) under a random nonce of 96 bits.
 * @param about what the secret is for; it opens for nothing else
 */
export function seal(
  { id, bytes }: SealingKey,
  secret: string,
  about: string,
  random: (size: number) => Uint8Array = randomBytes,
): Sealed {
  const nonce = random(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', bytes, nonce, { authTagLength: tagBytes })
  cipher.setAAD(aadOf(id, about))
  const data = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final(), cipher.getAuthTag()])
  return { keyId: id, nonce: Buffer.from(nonce).toString('base64'), data: data.toString('base64') }
}

/** The secret, or undefined where none of the keys made it, it was changed, or it is about something else. */
export function unseal(keys: readonly SealingKey[], sealed: Sealed, about: string): string | undefined {
  const key = keys.find(({ id }) => id === sealed.keyId)
  const nonce = Buffer.from(sealed.nonce, 'base64')
  const data = Buffer.from(sealed.data, 'base64')
  if (!key || nonce.length !== nonceBytes || data.length < tagBytes) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key.bytes, nonce, { authTagLength: tagBytes })
  decipher.setAAD(aadOf(key.id, about))
  decipher.setAuthTag(data.subarray(-tagBytes))
  try {
    return Buffer.concat([decipher.update(data.subarray(0, -tagBytes)), decipher.final()]).toString('utf8')
  } catch {
    return undefined
  }
}

function aadOf(keyId: string, about: string): Buffer {
  return Buffer.from(JSON.stringify([keyId, about]))
}

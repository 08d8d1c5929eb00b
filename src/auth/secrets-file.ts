import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { readPrivate } from './credentials.ts'
import type { SealingKey } from './seal.ts'

const keyBytes = 32
const maxKeys = 100

/** The file of a data directory with the keys that secrets are encrypted under. */
export function secretsPath(dataDir: string): string {
  return join(dataDir, 'secrets.key')
}

/**
 * The keys of a file: one a line, `ID BASE64-OF-32-BYTES`; the first encrypts, all decrypt. Lines of `#` are notes.
 * @throws PlasmaError `BadSecretsKey` that names the line, never a key
 */
export function parseSecretsFile(text: string, file: string): readonly SealingKey[] {
  const keys: SealingKey[] = []
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const [, id, base64] = /^\s*([\w.-]{1,64})\s+([A-Za-z0-9+/]{43}=)\s*$/.exec(line) ?? []
    const bytes = Buffer.from(base64 ?? '', 'base64')
    if (id === undefined || bytes.length !== keyBytes)
      throw bad(file, `line ${at + 1} is no ID with ${keyBytes} bytes in base64`)
    if (keys.some((key) => key.id === id)) throw bad(file, `line ${at + 1}: the id ${id} stands twice`)
    keys.push({ id, bytes })
  }
  if (keys.length > maxKeys) throw bad(file, `has more than ${maxKeys} keys`)
  if (keys.length === 0) throw bad(file, 'has no key')
  return keys
}

function bad(file: string, why: string): PlasmaError {
  return new PlasmaError('BadSecretsKey', `${file}: ${why}`, {
    hint: 'correct it, or put a copy from another server or a backup in its place',
  })
}

/** A line for a new key. */
export function newKeyLine(random: (size: number) => Uint8Array = randomBytes): string {
  const id = `k${Buffer.from(random(6)).toString('hex')}`
  return `${id} ${Buffer.from(random(keyBytes)).toString('base64')}\n`
}

/** The keys of the file, or undefined where there is none. @throws PlasmaError `TooOpen`, `BadSecretsKey`, or the system's error */
export function readSecretsFile(file: string): readonly SealingKey[] | undefined {
  try {
    return parseSecretsFile(readPrivate(file), file)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Writes a file with one new key, mode 0600. @returns false where there is one already */
export function makeSecretsFile(file: string, random?: (size: number) => Uint8Array): boolean {
  const note =
    '# The first key encrypts the secrets of access keys, all decrypt. Without it they are lost: keep a copy.\n'
  try {
    writeFileAtomic(file, note + newKeyLine(random), { mode: 0o600, exclusive: true })
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

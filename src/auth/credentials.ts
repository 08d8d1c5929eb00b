import { randomBytes } from 'node:crypto'
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import type { Credentials } from './sign.ts'

export type { Credentials } from './sign.ts'

type Env = Readonly<Record<string, string | undefined>>
type RandomBytes = (size: number) => Uint8Array

/** The credentials file of a data directory. */
export function credentialsPath(dataDir: string): string {
  return join(dataDir, 'credentials')
}

const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** A new key pair: an id of 20 characters that begins with PVMC, and a secret of 40 with 240 bits of chance. */
export function generateCredentials(random: RandomBytes = randomBytes): Credentials {
  const id = Array.from(random(16), (byte) => base32[byte & 31]).join('')
  return { accessKeyId: `PVMC${id}`, secretAccessKey: Buffer.from(random(30)).toString('base64') }
}

/** Parses an AWS credentials file: `[profile]`, then `aws_access_key_id` and `aws_secret_access_key`. */
export function parseCredentials(text: string): Map<string, Credentials> {
  const profiles = new Map<string, { id?: string; secret?: string }>()
  let current: { id?: string; secret?: string } = {}
  for (const line of text.split(/\r?\n/)) {
    const section = /^\s*\[\s*([^\]]+?)\s*\]/.exec(line)?.[1]
    if (section !== undefined) {
      current = profiles.get(section) ?? {}
      profiles.set(section, current)
    }
    const [, name, value] = /^\s*(aws_access_key_id|aws_secret_access_key)\s*=\s*(\S+)\s*$/.exec(line) ?? []
    if (name === 'aws_access_key_id') current.id = value!
    if (name === 'aws_secret_access_key') current.secret = value!
  }
  const complete = new Map<string, Credentials>()
  for (const [profile, { id, secret }] of profiles) {
    if (id && secret) complete.set(profile, { accessKeyId: id, secretAccessKey: secret })
  }
  return complete
}

/** Reads a file that only its owner may read. @throws PlasmaError `TooOpen`, or the system's error */
export function readPrivate(file: string): string {
  const fd = openSync(file, 'r')
  try {
    const { mode, size } = fstatSync(fd)
    if ((mode & 0o077) !== 0) {
      const octal = (mode & 0o777).toString(8)
      throw new PlasmaError('TooOpen', `${file} may be read by others (mode ${octal})`, {
        hint: `chmod 600 ${file}; if others could log in here, make new keys`,
      })
    }
    if (size > 1 << 20) throw new PlasmaError('BadCredentials', `${file} has more than 1 MiB`)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/** All profiles of a credentials file. @throws PlasmaError `TooOpen`, `NoCredentials`, `Unreadable` */
export function readCredentialsFile(file: string): Map<string, Credentials> {
  try {
    return parseCredentials(readPrivate(file))
  } catch (error) {
    if (error instanceof PlasmaError) throw error
    if (errnoOf(error) === 'ENOENT') {
      throw new PlasmaError('NoCredentials', `there is no credentials file ${file}`, {
        hint: "start the server with 'plasmavmc serve' (it writes this file), or check --data-dir",
        cause: error,
      })
    }
    throw new PlasmaError('Unreadable', `cannot read ${file}: ${messageOf(error)}`, {
      hint: 'run as the user the server runs as, or copy the file where only you can read it',
      cause: error,
    })
  }
}

/**
 * The key to sign with: PLASMAVMC_ACCESS_KEY_ID and PLASMAVMC_SECRET_ACCESS_KEY, or else the profile
 * PLASMAVMC_PROFILE (`default`) of `<dataDir>/credentials`. @throws PlasmaError as readCredentialsFile
 */
export function readCredentials(dataDir: string, env: Env = {}): Credentials {
  const accessKeyId = env['PLASMAVMC_ACCESS_KEY_ID']
  const secretAccessKey = env['PLASMAVMC_SECRET_ACCESS_KEY']
  if (accessKeyId && secretAccessKey) return { accessKeyId, secretAccessKey }
  const file = credentialsPath(dataDir)
  const profile = env['PLASMAVMC_PROFILE'] || 'default'
  const found = readCredentialsFile(file).get(profile)
  if (found) return found
  throw new PlasmaError('NoCredentials', `${file} has no complete profile [${profile}]`, {
    hint: 'each profile needs aws_access_key_id and aws_secret_access_key; name another with PLASMAVMC_PROFILE',
  })
}

/** The text of a credentials file with one profile. */
export function formatCredentials(credentials: Credentials, profile = 'default'): string {
  const { accessKeyId, secretAccessKey } = credentials
  return `[${profile}]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`
}

/**
 * The bootstrap admin key of a data directory; made, with the file at mode 0600, where there is none. Two servers that
 * start at once end with the same key. @throws PlasmaError as readCredentials, or the system's error
 */
export function ensureCredentials(dataDir: string, random: RandomBytes = randomBytes): Credentials {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const text = formatCredentials(generateCredentials(random))
  try {
    return readCredentials(dataDir)
  } catch (error) {
    if (!(error instanceof PlasmaError) || errnoOf(error.cause) !== 'ENOENT') throw error
  }
  try {
    writeFileAtomic(credentialsPath(dataDir), text, { mode: 0o600, exclusive: true })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  return readCredentials(dataDir)
}

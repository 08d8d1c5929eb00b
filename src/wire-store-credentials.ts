import { createHash, createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Config, etcdUrls, flagOf } from './config.ts'
import { errnoOf, messageOf, PlasmaError } from './lib/errors.ts'
import { whyFile } from './lib/folders.ts'
import type { Log } from './lib/log.ts'
import type { EtcdCredentials } from './store/etcd-client.ts'

type FileSetting = 'etcdCa' | 'etcdCert' | 'etcdKey' | 'etcdPasswordFile'
const fileSettings: readonly FileSetting[] = ['etcdCa', 'etcdCert', 'etcdKey', 'etcdPasswordFile']

type Files = Readonly<Partial<Record<FileSetting, Buffer>>>

/**
 * By what right etcd lets us in, as the files say that the configuration names. What it gives reads them anew, and has
 * the same object as long as they hold the same; so a certificate or a password is renewed in place.
 * @throws PlasmaError `BadConfig` that names the file which is none, or does not fit
 */
export function etcdCredentials(config: Config, log: Log): () => EtcdCredentials {
  let [digest, known] = read(config)
  let told = ''
  return () => {
    try {
      const [now, credentials] = read(config)
      told = ''
      if (now === digest) return known
      log.info('etcd: certificates or password have changed', { files: filesOf(config) })
      digest = now
      known = credentials
    } catch (error) {
      // Being rewritten just now, perhaps: those before count.
      const message = messageOf(error)
      if (message !== told) log.warn('etcd: certificates or password are not read anew', { message })
      told = message
    }
    return known
  }
}

const filesOf = (config: Config) => fileSettings.flatMap((name) => config[name] ?? [])

/** @returns what the files hold, as a text to compare and as what it means */
function read(config: Config): [string, EtcdCredentials] {
  const files: Files = Object.fromEntries(fileSettings.map((name) => [name, fileOf(config, name)]))
  const hash = createHash('sha256')
  for (const name of fileSettings) hash.update(`${name} ${files[name]?.length}\n`).update(files[name] ?? '')
  return [hash.digest('hex'), credentialsOf(config, files)]
}

function credentialsOf(config: Config, files: Files): EtcdCredentials {
  const { etcdUser: username } = config
  const tls = tlsOf(config, files)
  const password = files.etcdPasswordFile?.toString().replace(/\r?\n$/, '')
  return {
    ...(etcdUrls(config)[0]?.startsWith('https') && { tls }),
    ...(username !== undefined && password !== undefined && { auth: { username, password } }),
  }
}

/** What is in the PEM files. @throws PlasmaError that names the file which is none, or does not fit */
function tlsOf(config: Config, files: Files): NonNullable<EtcdCredentials['tls']> {
  const { etcdCa: ca, etcdCert: cert, etcdKey: key } = files
  if (ca) parsed(config, 'etcdCa', 'certificate', () => new X509Certificate(ca))
  if (!cert || !key) return ca ? { ca } : {}
  const ours = parsed(config, 'etcdCert', 'certificate', () => new X509Certificate(cert))
  const secret = parsed(config, 'etcdKey', 'private key', () => createPrivateKey(key))
  if (ours.checkPrivateKey(secret)) return { ...(ca && { ca }), cert, key }
  throw bad(config, 'etcdKey', `is not the key of the certificate in ${config.etcdCert}`)
}

function parsed<T>(config: Config, name: FileSetting, what: string, parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    throw bad(config, name, `holds no PEM ${what}`, cause)
  }
}

function fileOf(config: Config, name: FileSetting): Buffer | undefined {
  const path = config[name]
  if (path === undefined) return undefined
  try {
    return readFileSync(path)
  } catch (cause) {
    const why = errnoOf(cause) === 'ENOENT' ? 'does not exist' : whyFile(cause)
    throw bad(config, name, why, cause)
  }
}

function bad(config: Config, name: FileSetting, why: string, cause?: unknown): PlasmaError {
  return new PlasmaError('BadConfig', `${flagOf(name)}: ${config[name]}: ${why}`, { cause })
}

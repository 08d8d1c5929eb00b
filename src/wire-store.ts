import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Config, etcdUrls, flagOf } from './config.ts'
import { systemClock } from './lib/clock.ts'
import { errnoOf, PlasmaError } from './lib/errors.ts'
import { whyFile } from './lib/folders.ts'
import type { Log } from './lib/log.ts'
import type { EtcdAccess } from './store/etcd-client.ts'
import type { CallTimes } from './store/etcd-cluster.ts'
import type { Kv } from './store/kv.ts'
import { openLmdb } from './store/lmdb.ts'
import { MemoryKv } from './store/memory.ts'

/**
 * Opens the store that is configured.
 * @param times deadlines of calls to etcd, where they are to be others than usual
 * @throws PlasmaError that names the setting, file or endpoint
 */
export async function openStore(config: Config, log: Log, times: Partial<CallTimes> = {}): Promise<Kv> {
  if (config.store === 'memory') return new MemoryKv()
  if (config.store === 'lmdb') return openLmdb(join(config.dataDir, 'store'), { log })
  const { etcdPrefix: prefix, etcdUser: username } = config
  const tls = tlsOf(config)
  const password = fileOf(config, 'etcdPasswordFile')
    ?.toString()
    .replace(/\r?\n$/, '')
  const endpoints = etcdUrls(config)
  // It takes a fifth of a second to load, which no other store has to wait for.
  const { openEtcd } = await import('./store/etcd.ts')
  return openEtcd({
    ...{ endpoints, prefix, clock: systemClock, log, times },
    ...(endpoints[0]?.startsWith('https') && { tls }),
    ...(username !== undefined && password !== undefined && { auth: { username, password } }),
  })
}

/** What is in the PEM files. @throws PlasmaError that names the file which is none, or does not fit */
function tlsOf(config: Config): NonNullable<EtcdAccess['tls']> {
  const [ca, cert, key] = [fileOf(config, 'etcdCa'), fileOf(config, 'etcdCert'), fileOf(config, 'etcdKey')]
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

type FileSetting = 'etcdCa' | 'etcdCert' | 'etcdKey' | 'etcdPasswordFile'

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

import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { defaultAddress, defaultDataDir } from '../lib/dirs.ts'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'

const defaultPort = Number(defaultAddress.replace(/^.*:/, ''))

/** Where the server is and where its CA and our key lie. */
export interface Connection {
  readonly host: string
  readonly port: number
  readonly dataDir: string
  /** What a user must repeat on the next command line to reach the same server; empty for the defaults. */
  readonly flags: string
  /** Whom requests are to be done as. */
  readonly as?: { readonly user: string; readonly groups: readonly string[] }
}

/** `host:port`, `[v6]:port`, either without the port for the default one, or an https URL. @throws UsageError */
export function parseAddress(text: string): { readonly host: string; readonly port: number } {
  const url = URL.parse(text.includes('://') ? text : `https://${text}`)
  if (url?.protocol !== 'https:' || url.hostname === '') {
    throw new UsageError(`"${text}" is no server address`, 'write host:port, such as 127.0.0.1:7443')
  }
  // A URL has no port where it is that of https, also where somebody wrote it.
  const fallback = text.includes('://') || /:0*443\/?$/.test(text) ? 443 : defaultPort
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? fallback : Number(url.port) }
}

/** The connection that options, then the environment, then the defaults ask for. */
export function connectionOf(options: GlobalOptions, io: Pick<Io, 'env' | 'uid'>): Connection {
  const fallback = defaultDataDir(io.env, io.uid)
  const dataDir = resolve(options.dataDir ?? (io.env['PLASMAVMC_DATA_DIR'] || fallback))
  const address = options.server ?? (io.env['PLASMAVMC_SERVER'] || defaultAddress)
  const flags = [
    options.dataDir !== undefined && dataDir !== fallback ? `--data-dir ${quote(dataDir)}` : '',
    options.server !== undefined && address !== defaultAddress ? `--server ${quote(address)}` : '',
  ]
  const as = impersonationOf(options)
  return { ...parseAddress(address), dataDir, flags: flags.filter(Boolean).join(' '), ...(as && { as }) }
}

/** Whom `--as` and `--as-group` name. @throws UsageError */
export function impersonationOf({ as: user, asGroup: groups = [] }: GlobalOptions): Connection['as'] {
  if (user === undefined && groups.length > 0) throw new UsageError('--as-group needs --as')
  const odd = [user ?? 'x', ...groups].find((one) => !/^[!-~]([ -~]{0,251}[!-~])?$/.test(one))
  if (odd !== undefined) throw new UsageError(`--as: "${odd}" is no name`, 'such as --as alice')
  return user === undefined ? undefined : { user, groups }
}

/** A word as a POSIX shell takes it. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** PEM text of the server's CA. @throws PlasmaError that says how to start a server where there was never one */
export function readCa(dataDir: string): string {
  const file = join(dataDir, 'pki', 'ca.crt')
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw unreadable(file, dataDir, error)
  }
}

/** What to tell of a file of the data directory that can't be read. */
export function unreadable(file: string, dataDir: string, error: unknown): PlasmaError {
  const why = errnoOf(error)
  if (why === 'ENOENT' && !existsSync(dataDir)) {
    return new PlasmaError(
      'NoServer',
      `there is no PlasmaVMC data in ${dataDir}: no server was started here`,
      {
        hint: "start one with 'plasmavmc serve', or name its data directory with --data-dir or PLASMAVMC_DATA_DIR",
      },
    )
  }
  const text = why === 'EACCES' ? 'permission denied' : why === 'ENOENT' ? 'it does not exist' : String(error)
  return new PlasmaError('Unreadable', `cannot read ${file}: ${text}`, {
    hint:
      why === 'EACCES'
        ? 'run as the user the server runs as, or copy the file where you can read it and give --data-dir'
        : "start the server with 'plasmavmc serve' (it writes this file), or check --data-dir",
  })
}

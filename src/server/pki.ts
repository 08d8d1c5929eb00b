import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'

/** PEM texts. */
export interface Pki {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export interface PkiOptions {
  /** Host names and addresses clients may call the server by; localhost and both loopbacks are always added. */
  readonly names: readonly string[]
  /** Wall milliseconds. */
  readonly now: number
}

const dayMs = 86_400_000
const renewBeforeMs = 30 * dayMs
const alwaysNamed = ['localhost', '127.0.0.1', '::1']

/**
 * The CA and the server certificate under `dir`, made on the first start. The certificate is made anew when less than
 * 30 days are left, when `names` changed, or when its key is not its; the CA stays, since clients keep it.
 * @throws PlasmaError `PkiUnusable` for a CA that is expired, lacks its key or can't be read
 */
export async function ensurePki(dir: string, options: PkiOptions): Promise<Pki> {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const names = [...new Set([...alwaysNamed, ...options.names])].filter((name) => !isUnspecified(name))
  const ca = await ensureCa(dir, options.now)
  const cert = readIfThere(join(dir, 'server.crt'))
  const key = readIfThere(join(dir, 'server.key'))
  if (cert && key && stillGood(cert, key, ca, names, options.now)) return { ca, cert, key }
  return issue(dir, ca, names, options.now)
}

/** Listening on every address names none. */
function isUnspecified(name: string): boolean {
  return name === '' || name === '0.0.0.0' || name === '::'
}

function unusable(dir: string, why: string, cause?: unknown): PlasmaError {
  return new PlasmaError('PkiUnusable', `the API's CA in ${dir} can't be used: ${why}`, {
    hint: `restore it from a backup, or move ${dir} away and start again; clients then need the new ca.crt`,
    cause,
  })
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

async function ensureCa(dir: string, now: number): Promise<string> {
  const text = readIfThere(join(dir, 'ca.crt'))
  if (text !== undefined) {
    checkCa(dir, text, now)
    return text
  }
  const { makeCa } = await import('./pki-make.ts')
  const made = await makeCa(now)
  // The key first: a crash in between leaves no certificate, and the next start makes both anew.
  writeFileAtomic(join(dir, 'ca.key'), made.key, { mode: 0o600 })
  writeFileAtomic(join(dir, 'ca.crt'), made.cert, { mode: 0o644 })
  return made.cert
}

function checkCa(dir: string, text: string, now: number): void {
  let ca: X509Certificate
  try {
    ca = new X509Certificate(text)
  } catch (error) {
    throw unusable(dir, `ca.crt is no certificate (${messageOf(error)})`, error)
  }
  if (ca.validToDate.getTime() <= now) throw unusable(dir, `it expired on ${ca.validTo}`)
}

function stillGood(
  certText: string,
  keyText: string,
  caText: string,
  names: readonly string[],
  now: number,
): boolean {
  try {
    const cert = new X509Certificate(certText)
    const ca = new X509Certificate(caText)
    return (
      cert.validToDate.getTime() - now >= renewBeforeMs &&
      cert.checkPrivateKey(createPrivateKey(keyText)) &&
      cert.verify(ca.publicKey) &&
      (cert.subjectAltName ?? '').split(', ').length === names.length &&
      names.every((name) => (isIP(name) ? cert.checkIP(name) : cert.checkHost(name)) !== undefined)
    )
  } catch {
    // A damaged certificate or key: the CA still stands, so another one is made.
    return false
  }
}

async function issue(dir: string, ca: string, names: readonly string[], now: number): Promise<Pki> {
  const caKey = readIfThere(join(dir, 'ca.key'))
  if (caKey === undefined) throw unusable(dir, 'ca.key is missing, and a new server certificate is due')
  if (!new X509Certificate(ca).checkPrivateKey(createPrivateKey(caKey))) {
    throw unusable(dir, 'ca.key is not the key of ca.crt')
  }
  const { makeServerCertificate } = await import('./pki-make.ts')
  const made = await makeServerCertificate({ cert: ca, key: caKey }, names, now)
  // A crash between the two is seen by checkPrivateKey at the next start.
  writeFileAtomic(join(dir, 'server.key'), made.key, { mode: 0o600 })
  writeFileAtomic(join(dir, 'server.crt'), made.cert, { mode: 0o644 })
  return { ca, ...made }
}

// First: x509 builds on decorators and throws where Reflect has no metadata yet.
import 'reflect-metadata'
import { createPrivateKey, KeyObject, randomBytes, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

const dayMs = 86_400_000
const curve = { name: 'ECDSA', namedCurve: 'P-256' } as const
const signing = { name: 'ECDSA', hash: 'SHA-256' } as const

type CryptoKey = webcrypto.CryptoKey

cryptoProvider.set(webcrypto as never)

/** Positive and never zero (RFC 5280 section 4.1.2.2). */
function serialNumber(): string {
  return `4${randomBytes(16).toString('hex').slice(1)}`
}

/** From a little before now, for clients whose clock is behind. */
function validity(now: number, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(now - 300_000), notAfter: new Date(now + days * dayMs) }
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(curve, true, ['sign', 'verify'])
}

function pemOf(key: CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' }).toString()
}

/** A CA for one server's clients: ECDSA P-256, 10 years, may sign no other CA. */
export async function makeCa(now: number): Promise<KeyPair> {
  const keys = await newKeys()
  const cert = await X509CertificateGenerator.createSelfSigned({
    name: `CN=PlasmaVMC CA ${randomBytes(4).toString('hex')}`,
    serialNumber: serialNumber(),
    ...validity(now, 3650),
    keys,
    signingAlgorithm: signing,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { cert: `${cert.toString('pem')}\n`, key: pemOf(keys.privateKey) }
}

/** A server certificate for `names` (DNS names and IP addresses): ECDSA P-256, 1 year, or as long as the CA lives. */
export async function makeServerCertificate(
  ca: KeyPair,
  names: readonly string[],
  now: number,
): Promise<KeyPair> {
  const issuer = new X509Certificate(ca.cert)
  const signingKey = createPrivateKey(ca.key).toCryptoKey(curve, false, ['sign'])
  const keys = await newKeys()
  const { notBefore, notAfter } = validity(now, 365)
  const cert = await X509CertificateGenerator.create({
    subject: 'CN=plasmavmc',
    issuer: issuer.subject,
    serialNumber: serialNumber(),
    notBefore,
    notAfter: new Date(Math.min(notAfter.getTime(), issuer.notAfter.getTime())),
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: signing,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value })),
      ),
      await AuthorityKeyIdentifierExtension.create(issuer),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { cert: `${cert.toString('pem')}\n`, key: pemOf(keys.privateKey) }
}

import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'

/** What OpenSSL says of a certificate whose issuer nobody vouches for (its X509_V_ERR codes, as Node names them). */
const untrusted: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

/** Whether a connection failed as the other side's CA is not known. */
export const isUntrusted = (code: string | undefined) => code !== undefined && untrusted.has(code)

let context: SecureContext | undefined

/**
 * Trusts what Node trusts and the CAs that this host's own tools trust, which are read once in a process. It holds up
 * everything for a fifth of a second: only for who needs it.
 */
export function hostTrust(): SecureContext {
  context ??= createSecureContext({
    ca: [...new Set([...getCACertificates('default'), ...getCACertificates('system')])],
  })
  return context
}

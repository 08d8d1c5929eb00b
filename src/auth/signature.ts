import { hmacSha256, sha256Hex } from './hash.ts'
import { algorithm, type Scope, scopeText } from './scope.ts'
import { signingKey } from './signing-key.ts'

/** The 32 bytes of the signature of a canonical request at `date` (X-Amz-Date's form). */
export function signatureBytes(secret: string, scope: Scope, date: string, canonical: string): Buffer {
  const stringToSign = `${algorithm}\n${date}\n${scopeText(scope)}\n${sha256Hex(canonical)}`
  return hmacSha256(signingKey(secret, scope), stringToSign)
}

/** The same in lower-case hexadecimal, as it is sent. */
export function signature(secret: string, scope: Scope, date: string, canonical: string): string {
  return signatureBytes(secret, scope, date, canonical).toString('hex')
}

import { hmacSha256, sha256Hex } from './hash.ts'
import { algorithm, type Scope, scopeText } from './scope.ts'
import { signingKey } from './signing-key.ts'

/** The signature, lower-case hexadecimal, of a canonical request at `date` (X-Amz-Date's form). */
export function signature(secret: string, scope: Scope, date: string, canonical: string): string {
  const stringToSign = [algorithm, date, scopeText(scope), sha256Hex(canonical)].join('\n')
  return hmacSha256(signingKey(secret, scope), stringToSign).toString('hex')
}

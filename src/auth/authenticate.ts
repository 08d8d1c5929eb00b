import { headerPairs, valuesOf } from './header-pairs.ts'
import { derivations, deriveForNothing } from './signing-key.ts'
import { verifyToken } from './token.ts'
import { type SignedRequest, type Verdict, type VerifyOptions, verifyRequest } from './verify.ts'

/**
 * Lets in a request by whatever it carries: a bearer token, a signed header or a presigned URL. Each refusal of a
 * signature derives one signing key: a key that is in use has its own at hand, and would be told from others by that.
 */
export function authenticate(request: SignedRequest, options: VerifyOptions): Verdict {
  const before = derivations()
  const verdict = judge(request, options)
  if (!verdict.ok && verdict.code === 'SignatureDoesNotMatch' && derivations() === before) deriveForNothing()
  return verdict
}

function judge(request: SignedRequest, options: VerifyOptions): Verdict {
  const authorization = valuesOf(headerPairs(request.headers), 'authorization')
  const [, token] = /^bearer +(\S+)$/i.exec(authorization[0] ?? '') ?? []
  return token !== undefined && authorization.length === 1
    ? verifyToken(token, options, request.address)
    : verifyRequest(request, options)
}

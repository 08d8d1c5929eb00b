import { type Refusal, type RefusalCode, refuse } from './refusal.ts'
import { algorithm, type Scope } from './scope.ts'

/** What a signed request claims, before anything of it is believed. */
export interface Claim {
  readonly ok: true
  readonly accessKeyId: string
  readonly scope: Scope
  readonly signedHeaders: readonly string[]
  /** 64 lower-case hexadecimal digits. */
  readonly signature: string
}

const credentialForm = /^([\w-]{1,128})\/(\d{8})\/([\w-]{1,64})\/([\w-]{1,64})\/aws4_request$/
const headerNames = /^[!#$%&'*+.^_`|~0-9a-z-]+(;[!#$%&'*+.^_`|~0-9a-z-]+)*$/

/** The three members of a claim, from wherever they stood. Names of signed headers are unique and lower-case. */
export function parseClaim(
  code: RefusalCode,
  credential: string,
  signedHeaders: string,
  signature: string,
): Claim | Refusal {
  const match = credentialForm.exec(credential)
  if (!match) {
    return refuse(code, 'Credential must be ACCESS-KEY-ID/YYYYMMDD/REGION/SERVICE/aws4_request')
  }
  const names = signedHeaders.split(';')
  if (!headerNames.test(signedHeaders) || new Set(names).size !== names.length) {
    return refuse(code, 'SignedHeaders must be lower-case header names, each once, with ; between them')
  }
  if (!/^[0-9a-f]{64}$/.test(signature)) return refuse(code, 'Signature must be 64 hexadecimal digits')
  const [, accessKeyId, date, region, service] = match as unknown as [string, string, string, string, string]
  return { ok: true, accessKeyId, scope: { date, region, service }, signedHeaders: names, signature }
}

/** Parses `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`; the members may come in any order. */
export function parseAuthorization(header: string): Claim | Refusal {
  const incomplete = (message: string) => refuse('IncompleteSignature', message)
  if (!header.startsWith(`${algorithm} `)) {
    return incomplete(`Authorization must begin with ${algorithm}`)
  }
  const members = new Map<string, string>()
  for (const piece of header.slice(algorithm.length + 1).split(',')) {
    const [, name, value] =
      /^[ \t]*(Credential|SignedHeaders|Signature)=([\x21-\x7e]*)[ \t]*$/.exec(piece) ?? []
    if (name === undefined || value === undefined || members.has(name)) {
      return incomplete('Authorization must have Credential, SignedHeaders and Signature, each once')
    }
    members.set(name, value)
  }
  const [credential, names, signature] = ['Credential', 'SignedHeaders', 'Signature'].map((n) =>
    members.get(n),
  )
  if (credential === undefined || names === undefined || signature === undefined) {
    return incomplete('Authorization must have Credential, SignedHeaders and Signature, each once')
  }
  return parseClaim('IncompleteSignature', credential, names, signature)
}

import { rfc3339Micro } from '../lib/clock.ts'
import type { Target, Verb } from './authorize.ts'
import { queryPairs } from './canonical-query.ts'
import { splitUrl } from './canonical-request.ts'
import type { Identity } from './identity.ts'

export interface AuditInput {
  readonly id: string
  /** Wall milliseconds when the request came, and when its answer's head was sent. */
  readonly receivedAt: number
  readonly answeredAt: number
  readonly verb: Verb
  readonly method: string
  readonly rawUrl: string
  readonly target: Target
  /** Absent where nobody was let in. */
  readonly identity?: Identity
  /** Who signed, where that is somebody else. */
  readonly impersonator?: Identity
  readonly sourceIp: string
  readonly userAgent?: string
  readonly code: number
  readonly reason?: string
}

/** An Event of audit.k8s.io/v1 at level Metadata: who did what, never a body. */
export type AuditRecord = Readonly<Record<string, unknown>>

/** A URL without what would let a reader of the log act as the writer of the request, however its name is encoded. */
function withoutSignature(rawUrl: string): string {
  const { path, query } = splitUrl(rawUrl)
  if (query === '') return rawUrl
  const pieces = query.split('&').map((piece) => {
    const [name] = queryPairs(piece)[0] ?? ['']
    return name.toLowerCase() === 'x-amz-signature' ? `${piece.split('=')[0]}=-` : piece
  })
  return `${path}?${pieces.join('&')}`
}

/** A request and its answer as a record. Signatures in URLs are blotted out. */
export function auditRecord(input: AuditInput): AuditRecord {
  const { identity, impersonator, target } = input
  const signer = impersonator ?? identity
  return {
    kind: 'Event',
    apiVersion: 'audit.k8s.io/v1',
    level: 'Metadata',
    auditID: input.id,
    stage: 'ResponseComplete',
    requestURI: withoutSignature(input.rawUrl),
    verb: input.verb,
    user: signer ? userOf(signer) : { username: 'system:anonymous', groups: ['system:unauthenticated'] },
    ...(impersonator && identity && { impersonatedUser: userOf(identity) }),
    sourceIPs: [input.sourceIp],
    ...(input.userAgent === undefined ? {} : { userAgent: input.userAgent.slice(0, 256) }),
    ...('path' in target ? {} : { objectRef: objectRef(target) }),
    responseStatus: { code: input.code, ...(input.reason === undefined ? {} : { reason: input.reason }) },
    requestReceivedTimestamp: rfc3339Micro(input.receivedAt),
    stageTimestamp: rfc3339Micro(input.answeredAt),
  }
}

/** UserInfo of authentication.k8s.io/v1, with the key that signed. */
export function userOf({ name, groups, accessKeyId }: Identity) {
  const extra = { 'authentication.kubernetes.io/credential-id': [`KEY=${accessKeyId}`] }
  return { username: name, groups, ...(accessKeyId !== undefined && { extra }) }
}

function objectRef(target: Exclude<Target, { path: string }>): object {
  const { group, ...rest } = target
  return { ...rest, ...(group === '' ? {} : { apiGroup: group }) }
}

/** The line an audit log keeps of a record; JSON escapes whatever could break it in two. */
export function auditLine(record: AuditRecord): string {
  return `${JSON.stringify(record)}\n`
}

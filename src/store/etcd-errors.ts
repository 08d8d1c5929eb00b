import { messageOf } from '../lib/errors.ts'
import { ApiError } from './errors.ts'

/**
 * What a failed call to etcd means.
 * `unsent`: it was not executed and never will be; safe to send again.
 * `token`: likewise, and this client must log in again.
 * `unknown`: it may have been executed, or may be yet.
 * All others: etcd has answered, and nothing was executed.
 */
export type FailureKind =
  | 'unsent'
  | 'token'
  | 'unknown'
  | 'compacted'
  | 'future'
  | 'denied'
  | 'too-large'
  | 'page-too-large'
  | 'no-space'
  | 'refused'

/** What etcd and gRPC say, to what it means; the first that fits counts. Texts of etcd 3.4 to 3.6 and grpc-js 1.14. */
const meanings: readonly (readonly [RegExp, FailureKind])[] = [
  [/required revision has been compacted/, 'compacted'],
  [/required revision is a future revision/, 'future'],
  [/request is too large|grpc: received message larger than max/, 'too-large'],
  [/received message larger than max/i, 'page-too-large'],
  [/database space exceeded/, 'no-space'],
  [/invalid auth token|revision of auth store is old/, 'token'],
  [/permission denied|authentication failed|user name is empty|authentication is not enabled/, 'denied'],
  // grpc-js says these of calls it has not given to a connection; etcd says these of what it has not proposed.
  [/No connection established|Channel closed before call started|Name resolution failed/, 'unsent'],
  [/etcdserver: no leader|too many requests|raft proposal dropped|was already closed/, 'unsent'],
  [/^(3|5|6|9|11|12) [A-Z_]+: /, 'refused'],
]

/** A call to etcd that failed, and what that means. */
export class EtcdFailure extends Error {
  readonly kind: FailureKind

  constructor(kind: FailureKind, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'EtcdFailure'
    this.kind = kind
  }

  /** Whether another endpoint, or the same one later, may answer. */
  get transient(): boolean {
    return this.kind === 'unsent' || this.kind === 'token' || this.kind === 'unknown'
  }
}

/** The failure behind anything thrown by a call. What is not known for sure counts as `unknown`. */
export function failureOf(error: unknown): EtcdFailure {
  if (error instanceof EtcdFailure) return error
  const text = messageOf(error)
  const kind = meanings.find(([pattern]) => pattern.test(text))?.[1] ?? 'unknown'
  return new EtcdFailure(kind, text, { cause: error })
}

const hints: Partial<Record<FailureKind, string>> = {
  denied: 'see --etcd-user, --etcd-password-file and --etcd-cert, and the permissions of that user in etcd',
  'too-large': "the limit is etcd's --max-request-bytes",
  'no-space': "etcd's quota is used up: compact, defragment, then disarm the alarm with etcdctl",
}

const reachable = 'is etcd running, with a majority of its members, at --etcd-endpoints?'

/** etcd could not be asked. */
export function unavailable(message: string, cause?: unknown, hint = reachable): ApiError {
  return new ApiError('ServiceUnavailable', message, { retryAfterSeconds: 1 }, { hint, cause })
}

/** What callers of the store see of a failed call: `doing` is such as "can't be read". */
export function apiErrorOf(failure: EtcdFailure, doing: string): ApiError {
  const message = `etcd ${doing}: ${failure.message}`
  if (failure.kind === 'too-large')
    return new ApiError(
      'RequestEntityTooLarge',
      message,
      {},
      { hint: hints['too-large'] ?? '', cause: failure },
    )
  return unavailable(message, failure, hints[failure.kind])
}

/** A write that may or may not have happened, and may happen yet. */
export function outcomeUnknown(key: string, cause: unknown): ApiError {
  const message = `etcd did not say whether ${key} was written, it may have been: ${messageOf(cause)}`
  return unavailable(message, cause, `read it before you write it again; ${reachable}`)
}

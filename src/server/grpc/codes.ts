import { ApiError, type Reason } from '../../store/errors.ts'
import { statusOf } from '../status.ts'

/** gRPC's status codes that are used here (grpc/doc/statuscodes.md). */
export const codes = {
  OK: 0,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const

export type CodeName = keyof typeof codes

/** A history that is gone is OUT_OF_RANGE, as etcd says it. */
const ofReason: Readonly<Record<Reason, CodeName>> = {
  BadRequest: 'INVALID_ARGUMENT',
  Unauthorized: 'UNAUTHENTICATED',
  Forbidden: 'PERMISSION_DENIED',
  NotFound: 'NOT_FOUND',
  MethodNotAllowed: 'UNIMPLEMENTED',
  NotAcceptable: 'INVALID_ARGUMENT',
  AlreadyExists: 'ALREADY_EXISTS',
  Conflict: 'ABORTED',
  Gone: 'OUT_OF_RANGE',
  Expired: 'OUT_OF_RANGE',
  RequestEntityTooLarge: 'RESOURCE_EXHAUSTED',
  UnsupportedMediaType: 'INVALID_ARGUMENT',
  Invalid: 'INVALID_ARGUMENT',
  TooManyRequests: 'RESOURCE_EXHAUSTED',
  InternalError: 'INTERNAL',
  ServiceUnavailable: 'UNAVAILABLE',
  Timeout: 'DEADLINE_EXCEEDED',
}

/** Clients take few kilobytes of trailers. */
const longestMessage = 1_500

/** How a call ends, as grpc-js takes it. */
export interface CallStatus {
  readonly code: number
  readonly details: string
}

/** Fields of the object that a request of gRPC calls otherwise. */
const fieldNames: Readonly<Record<string, string>> = {
  'metadata.name': 'name',
  'metadata.namespace': 'namespace',
  'metadata.labels': 'labels',
  'spec.cpu.cores': 'vcpus',
  'spec.memory': 'memory_mb',
}

/** An error of the object API, or any other, as the end of a call; what is no ApiError stays in the log. */
export function callStatus(error: unknown): CallStatus {
  const { body } = statusOf(error)
  const code = error instanceof ApiError ? codes[ofReason[error.reason]] : codes.INTERNAL
  return { code, details: sendable(withCauses(error) ?? String(body['message'])) }
}

/** The causes of an object that is refused, by the names that its fields have here. */
function withCauses(error: unknown): string | undefined {
  if (!(error instanceof ApiError) || error.reason !== 'Invalid' || !error.details.causes) return undefined
  return error.details.causes
    .map(({ field, message }) => `${fieldNames[field] ?? field}: ${message}`)
    .join(', ')
}

/**
 * Text that can be sent: grpc-js percent-encodes it with encodeURI, which throws on half a surrogate pair, as a client's
 * JSON may bring one, or as cutting the text may leave.
 */
function sendable(text: string): string {
  return text.slice(0, longestMessage).toWellFormed()
}

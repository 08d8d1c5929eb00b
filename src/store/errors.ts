import { PlasmaError } from '../lib/errors.ts'

/** The reasons of Kubernetes' Status objects that this system uses, with their HTTP codes. */
export const httpCodes = {
  BadRequest: 400,
  Unauthorized: 401,
  Forbidden: 403,
  NotFound: 404,
  MethodNotAllowed: 405,
  NotAcceptable: 406,
  AlreadyExists: 409,
  Conflict: 409,
  Gone: 410,
  Expired: 410,
  RequestEntityTooLarge: 413,
  UnsupportedMediaType: 415,
  Invalid: 422,
  TooManyRequests: 429,
  InternalError: 500,
  ServiceUnavailable: 503,
  Timeout: 504,
} as const

export type Reason = keyof typeof httpCodes

/** One field-level cause, as in Kubernetes' `details.causes`. `field` is a path such as `spec.disks[0].name`. */
export interface Cause {
  readonly reason: string
  readonly field: string
  readonly message: string
}

export interface ErrorDetails {
  readonly group?: string
  readonly kind?: string
  readonly name?: string
  readonly causes?: readonly Cause[]
  readonly retryAfterSeconds?: number
}

/** An error of the object API; one-to-one with a Kubernetes Status (`server/status.ts` renders it). */
export class ApiError extends PlasmaError {
  readonly reason: Reason
  readonly details: ErrorDetails

  constructor(
    reason: Reason,
    message: string,
    details: ErrorDetails = {},
    options: { hint?: string; cause?: unknown } = {},
  ) {
    super(reason, message, options)
    this.name = 'ApiError'
    this.reason = reason
    this.details = details
  }

  get status(): number {
    return httpCodes[this.reason]
  }
}

/** Whether `error` is an ApiError with that reason. */
export function isReason(error: unknown, reason: Reason): error is ApiError {
  return error instanceof ApiError && error.reason === reason
}

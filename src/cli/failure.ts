import { messageOf, PlasmaError } from '../lib/errors.ts'

/** Kubernetes' Status, as far as a client reads it (apimachinery meta/v1). */
export interface Status {
  readonly kind: 'Status'
  readonly status?: string
  readonly message?: string
  readonly reason?: string
  readonly code?: number
  readonly details?: {
    readonly kind?: string
    readonly name?: string
    readonly causes?: readonly {
      readonly reason?: string
      readonly field?: string
      readonly message?: string
    }[]
    readonly retryAfterSeconds?: number
  }
}

/** The server answered with an error. `code` is the Status' reason. */
export class ServerError extends PlasmaError {
  readonly status: Status

  constructor(status: Status, options: { hint?: string } = {}) {
    super(status.reason ?? 'Unknown', status.message ?? 'the server gave no reason', options)
    this.name = 'ServerError'
    this.status = status
  }
}

/** What was typed makes no sense: exit code 2. */
export class UsageError extends PlasmaError {
  constructor(message: string, hint?: string) {
    super('Usage', message, hint === undefined ? {} : { hint })
    this.name = 'UsageError'
  }
}

const hints: Readonly<Record<string, string>> = {
  Unauthorized:
    'the access key is not known to this server: check --data-dir, and that this machine’s clock is right',
  Forbidden:
    'ask an administrator for a role that allows this, or use another key (PLASMAVMC_PROFILE, --data-dir)',
  Conflict: 'somebody else changed it meanwhile: look at it again and repeat',
  TooManyRequests: 'wait a little and repeat',
}

/** Why a signature was refused, by how the message begins (the codes are AWS'), and what to do about it. */
const refusals: readonly (readonly [RegExp, string])[] = [
  [
    /access key is disabled/,
    "ask an administrator to let it in again ('plasmavmc key enable ID'), or use another key (PLASMAVMC_PROFILE)",
  ],
  [
    /access key has expired/,
    "ask an administrator for a new one ('plasmavmc key rotate ID'), or use another key (PLASMAVMC_PROFILE)",
  ],
  [
    /^(RequestTimeTooSkewed|RequestExpired|ExpiredToken)/,
    'check that this machine’s clock is right, then repeat',
  ],
  [/^SignatureDoesNotMatch/, 'check that the secret in the credentials is that of the key'],
]

/** An error of the server from its Status and HTTP code, with advice where there is any to give. */
export function serverError(status: Status): ServerError {
  const refusal = refusals.find(
    ([text]) => status.reason === 'Unauthorized' && text.test(status.message ?? ''),
  )
  const known = refusal?.[1] ?? hints[status.reason ?? '']
  // Conflicts of other kinds say themselves what to do.
  const other = status.reason === 'Conflict' && !/has been modified/.test(status.message ?? '')
  const hint = other ? undefined : known
  return new ServerError(status, hint === undefined ? {} : { hint })
}

/** Whether the server answered with this reason. */
export function isServerError(error: unknown, reason: string): error is ServerError {
  return error instanceof ServerError && error.code === reason
}

function causesOf(status: Status): string {
  const causes = status.details?.causes ?? []
  const told = status.message ?? ''
  return causes
    .filter((c) => c.field && !told.includes(c.field))
    .map((c) => `\n  ${c.field}: ${c.message ?? c.reason ?? 'invalid'}`)
    .join('')
}

/** The text of an error for people: what and why, then what to do, as kubectl words server errors. */
export function renderError(error: unknown): string {
  const hint = error instanceof PlasmaError && error.hint ? `\n${error.hint}` : ''
  if (error instanceof ServerError) {
    return `Error from server (${error.code}): ${error.message}${causesOf(error.status)}${hint}\n`
  }
  return `error: ${messageOf(error)}${hint}\n`
}

/** The same for programs: a Status, whoever made the error. */
export function errorObject(error: unknown): unknown {
  if (error instanceof ServerError) return error.status
  const reason = error instanceof PlasmaError ? error.code : 'InternalError'
  const hint = error instanceof PlasmaError ? error.hint : undefined
  const message = hint === undefined ? messageOf(error) : `${messageOf(error)}; ${hint}`
  return { apiVersion: 'v1', kind: 'Status', metadata: {}, status: 'Failure', reason, message }
}

/** 2 where the command line is at fault, 1 otherwise. */
export function exitCodeOf(error: unknown): number {
  return error instanceof UsageError ? 2 : 1
}

/**
 * An error that people read: `message` says what and why, `hint` what to do about it.
 * `code` is stable and is what programs compare.
 */
export class PlasmaError extends Error {
  readonly code: string
  readonly hint: string | undefined

  constructor(code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'PlasmaError'
    this.code = code
    this.hint = options.hint
  }
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The text of anything thrown, with what to do about it. */
export function adviceOf(error: unknown): string {
  const hint = error instanceof PlasmaError && error.hint !== undefined ? `; ${error.hint}` : ''
  return messageOf(error) + hint
}

/**
 * The error that says which field asked for what failed: its text begins with `field`, unless it begins with a field of
 * the spec already.
 */
export function inField(field: string, error: unknown, fallbackCode = 'Failed'): PlasmaError {
  const known = error instanceof PlasmaError
  const message = messageOf(error)
  if (known && message.startsWith('spec.')) return error
  const hint = known ? error.hint : undefined
  return new PlasmaError(known ? error.code : fallbackCode, `${field}: ${message}`, {
    cause: error,
    ...(hint !== undefined && { hint }),
  })
}

/** Node's errno code (`ENOENT`, …) of a thrown system error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : undefined
}

import { AsyncLocalStorage } from 'node:async_hooks'
import { type DestinationStream, type Logger, pino } from 'pino'

export type Fields = Readonly<Record<string, unknown>>

/** Structured log: one line of JSON an entry. `child` binds fields to every line that follows. */
export interface Log {
  debug(message: string, fields?: Fields): void
  info(message: string, fields?: Fields): void
  warn(message: string, fields?: Fields): void
  error(message: string, fields?: Fields): void
  child(fields: Fields): Log
}

const context = new AsyncLocalStorage<Fields>()

/**
 * Runs `work`; every line that is logged within it, and in what it starts, bears these fields beside those of an outer
 * call: the one request or pass that a line belongs to can be told, however deep it is written.
 */
export function withLogFields<T>(fields: Fields, work: () => T): T {
  const outer = context.getStore()
  return context.run(outer ? { ...outer, ...fields } : fields, work)
}

function wrap(logger: Logger): Log {
  return {
    debug: (message, fields) => logger.debug(fields ?? {}, message),
    info: (message, fields) => logger.info(fields ?? {}, message),
    warn: (message, fields) => logger.warn(fields ?? {}, message),
    error: (message, fields) => logger.error(fields ?? {}, message),
    child: (fields) => wrap(logger.child(fields)),
  }
}

/** Log to a stream (stderr by default) at `level` and above. An `err` field is written with its stack. */
export function jsonLog(level: string, destination?: DestinationStream): Log {
  const options = {
    ...{ level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    mixin: () => context.getStore() ?? {},
    // What a line says itself wins.
    mixinMergeStrategy: (said: object, mixed: object) => ({ ...mixed, ...said }),
  }
  return wrap(pino(options, destination ?? pino.destination({ dest: 2, sync: true })))
}

/** Drops everything; for tests and one-shot commands. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
}

import { type Clock, systemClock } from './clock.ts'
import { PlasmaError } from './errors.ts'

/**
 * Runs `work` under a deadline of `ms`. The signal given to `work` is aborted when the deadline passes or
 * `outer` is aborted, and the promise then rejects at once, whether `work` listens or not.
 * @throws PlasmaError `Timeout` naming `what` when the deadline passed first.
 */
export async function withDeadline<T>(
  ms: number,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  options: { signal?: AbortSignal | undefined; clock?: Clock } = {},
): Promise<T> {
  const own = new AbortController()
  const { signal: outer, clock = systemClock } = options
  outer?.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  const end = (reason: unknown) => {
    reject(reason)
    own.abort(reason)
  }
  const onOuter = () => end(outer?.reason)
  outer?.addEventListener('abort', onOuter, { once: true })
  const cancel = clock.after(ms, () => end(new PlasmaError('Timeout', `${what} took longer than ${ms} ms`)))
  try {
    work(own.signal).then(resolve, reject)
    return await promise
  } finally {
    cancel()
    outer?.removeEventListener('abort', onOuter)
  }
}

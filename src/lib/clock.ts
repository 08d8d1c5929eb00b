/**
 * Time as an argument. `now` is for people and records; `elapsed` is for decisions: it never jumps.
 */
export interface Clock {
  /** Wall time, milliseconds since the Unix epoch. May jump; show it, store it, don't subtract it. */
  now(): number
  /** Monotonic milliseconds from an arbitrary start. Only differences within one process mean anything. */
  elapsed(): number
  /** Calls `fn` once after `ms`; the returned function cancels. */
  after(ms: number, fn: () => void): () => void
}

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}

/** Resolves after `ms`; rejects with the signal's reason when it is aborted first. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = () => {
      cancel()
      reject(signal?.reason)
    }
    const cancel = clock.after(ms, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** Wall milliseconds as Kubernetes writes times in metadata: RFC 3339, UTC, whole seconds. */
export function rfc3339(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

/** Wall milliseconds as Kubernetes' MicroTime: RFC 3339 with six decimals. */
export function rfc3339Micro(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z')
}

import type { Clock } from '../lib/clock.ts'
import type { Meter } from '../lib/measures.ts'
import { ApiError } from './errors.ts'
import type { Kv } from './kv.ts'

type Operation = 'get' | 'list' | 'put' | 'delete'

/** The same store, with its operations measured. A watch is left out: it has no duration that says anything. */
export function meteredKv(kv: Kv, meter: Meter, clock: Clock): Kv {
  const timed = <T>(operation: Operation, work: Promise<T>): Promise<T> => {
    const startedAt = clock.elapsed()
    const over = () => {
      const seconds = (clock.elapsed() - startedAt) / 1000
      meter.observe('plasmavmc_store_operation_duration_seconds', { operation }, seconds)
    }
    return work.then(
      (result) => {
        over()
        return result
      },
      (error: unknown) => {
        over()
        meter.add('plasmavmc_store_operation_errors_total', { operation, reason: reasonOf(error) })
        throw error
      },
    )
  }
  return {
    get: (key) => timed('get', kv.get(key)),
    list: (prefix, options) => timed('list', kv.list(prefix, options)),
    put: (key, value, expected, also) => timed('put', kv.put(key, value, expected, also)),
    delete: (key, expected, also) => timed('delete', kv.delete(key, expected, also)),
    watch: (prefix, from, signal, progress) => kv.watch(prefix, from, signal, progress),
    close: () => kv.close(),
  }
}

/** One of Kubernetes' reasons, of which there are few. */
function reasonOf(error: unknown): string {
  return error instanceof ApiError ? error.reason : 'Other'
}

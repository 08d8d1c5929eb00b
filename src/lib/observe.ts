import { Observable } from 'rxjs'

/**
 * An Observable over an async iterable that really stops: unsubscribing aborts the signal the source was given,
 * so a pending `await` inside it ends. (rxjs' own `from(asyncIterable)` leaves the generator suspended for ever.)
 */
export function observe<T>(source: (signal: AbortSignal) => AsyncIterable<T>): Observable<T> {
  return new Observable<T>((subscriber) => {
    const controller = new AbortController()
    const run = async () => {
      try {
        for await (const value of source(controller.signal)) subscriber.next(value)
        subscriber.complete()
      } catch (error) {
        if (controller.signal.aborted) subscriber.complete()
        else subscriber.error(error)
      }
    }
    void run()
    return () => controller.abort()
  })
}

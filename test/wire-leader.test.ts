import { afterEach, expect, it } from 'vitest'
import { systemClock } from '../src/lib/clock.ts'
import { silentLog } from '../src/lib/log.ts'
import { apiVersionOf } from '../src/resources/define.ts'
import { Namespace } from '../src/resources/kinds.ts'
import type { Kv } from '../src/store/kv.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { MemoryKv } from '../src/store/memory.ts'
import { runLeader, type Term } from '../src/wire-leader.ts'

const terms = { renewMs: 50, deadlineMs: 150, durationMs: 300 }
const stops: AbortController[] = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop.abort()
})

const namespace = (name: string) => ({
  apiVersion: apiVersionOf(Namespace),
  kind: 'Namespace',
  metadata: { name },
  spec: {},
})

/** A server that contends, over a store of its own view; each of its terms is put into `terms`. */
function server(hostName: string, kv: Kv, part?: (term: Term) => Promise<unknown>) {
  const began: Term[] = []
  const waiting: ((term: Term) => void)[] = []
  const stop = new AbortController()
  stops.push(stop)
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const lead = (term: Term) =>
    new Promise((resolve) => {
      began.push(term)
      for (const tell of waiting.splice(0)) tell(term)
      term.signal.addEventListener('abort', resolve, { once: true })
    })
  const parts = [lead, ...(part ? [part] : [])]
  const ended = runLeader({ config: { hostName }, kv, objects, log: silentLog, parts, terms }, stop.signal)
  const next = () => new Promise<Term>((resolve) => waiting.push(resolve))
  return { began, next, stop: () => stop.abort(), ended }
}

it('has one leader, and another at once when that one is told to stop', async () => {
  const kv = new MemoryKv()
  const a = server('a', kv)
  const first = await a.next()
  const b = server('b', kv)
  await first.objects.create(Namespace, namespace('x'))
  const second = b.next()
  a.stop()
  await a.ended
  expect(first.signal.aborted).toBe(true)
  expect((await second).epoch).toBe(first.epoch + 1)
})

it('ends the term of a leader that the store no longer answers, and refuses what it writes later', async () => {
  const kv = new MemoryKv()
  let cut = false
  const stale: Kv = Object.assign(Object.create(kv) as Kv, {
    get: (key: string) => (cut ? new Promise(() => {}) : kv.get(key)),
    put: (...args: Parameters<Kv['put']>) => kv.put(...args),
    list: kv.list.bind(kv),
    watch: kv.watch.bind(kv),
    delete: kv.delete.bind(kv),
  })
  const a = server('a', stale)
  const first = await a.next()
  const b = server('b', kv)
  const second = b.next()
  cut = true
  const { objects, epoch } = await second
  expect(first.signal.aborted).toBe(true)
  cut = false
  await expect(first.objects.create(Namespace, namespace('late'))).rejects.toMatchObject({
    reason: 'ServiceUnavailable',
  })
  expect(epoch).toBe(first.epoch + 1)
  await objects.create(Namespace, namespace('late'))
})

it('lets go when a part of it fails, and contends anew', async () => {
  const kv = new MemoryKv()
  let fails = true
  const a = server('a', kv, async ({ signal }) => {
    if (fails) throw new Error('broken')
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  })
  const first = await a.next()
  const again = a.next()
  fails = false
  expect((await again).epoch).toBeGreaterThan(first.epoch)
  expect(first.signal.aborted).toBe(true)
})

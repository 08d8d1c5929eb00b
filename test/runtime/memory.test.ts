import { AsyncLocalStorage } from 'node:async_hooks'
import { expect, onTestFinished, test } from 'vitest'
import { silentLog } from '../../src/lib/log.ts'
import { apiVersionOf, type KubeObject } from '../../src/resources/define.ts'
import { StoragePool } from '../../src/resources/kinds.ts'
import { runController } from '../../src/runtime/controller.ts'
import { Informer } from '../../src/runtime/informer.ts'
import { WorkQueue } from '../../src/runtime/queue.ts'
import type { KvEntry } from '../../src/store/kv.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { watchKin } from '../../src/store/ownership.ts'
import { collected, held } from '../fakes/collected.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

const count = 50

function stopAtEnd(): AbortSignal {
  const stop = new AbortController()
  onTestFinished(() => stop.abort())
  return stop.signal
}

/** Ends with the signal, and has nothing to tell before. */
async function* silent(signal: AbortSignal): AsyncGenerator<never> {
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
}

const pool = (i: number): StoragePool => ({
  ...{ apiVersion: apiVersionOf(StoragePool), kind: 'StoragePool' },
  metadata: { name: `p${i}`, resourceVersion: '1', managedFields: [{}] },
  spec: { path: '/p', shared: false },
})

test('a controller holds nothing of passes that have ended', async () => {
  const clock = new VirtualClock()
  const queue = new WorkQueue(clock)
  // What a pass runs in, such as the fields of its log lines: all that waits within the pass holds on to it.
  const storage = new AsyncLocalStorage<object>()
  const contexts: WeakRef<object>[] = []
  void runController(
    {
      ...{ name: 'test', queue, workers: 2, passTimeoutMs: 1_000, clock, log: silentLog },
      reconcile: async () => {
        const context = {}
        contexts.push(new WeakRef(context))
        storage.enterWith(context)
        return { next: 'done' }
      },
    },
    stopAtEnd(),
  )
  for (let i = 0; i < count; i += 1) queue.add(`key-${i}`)
  await clock.settle()
  expect(contexts).toHaveLength(count)
  await collected()
  // Each worker waits within what its last pass left behind.
  expect(held(contexts)).toBeLessThanOrEqual(2)
})

test('an informer holds its objects, and nothing else of a list', async () => {
  const signal = stopAtEnd()
  const listed: WeakRef<object>[] = []
  const store = {
    list: async () => {
      const items = Array.from({ length: count }, (_, i) => pool(i))
      listed.push(...items.map((item) => new WeakRef<object>(item)))
      return { items, resourceVersion: '1' }
    },
    watch: (_kind: unknown, options: { readonly signal: AbortSignal }) => silent(options.signal),
  }
  const informer = new Informer(store as unknown as ObjectStore, StoragePool, silentLog, new VirtualClock())
  void informer.run(signal)
  await informer.whenSynced()
  await collected()
  expect(informer.list()).toHaveLength(count)
  // The account of who owns what was taken from each, so none is what was listed.
  expect(held(listed)).toBe(0)
})

test('who follows owners holds nothing of a list', async () => {
  const signal = stopAtEnd()
  const listed: WeakRef<object>[] = []
  const kv = {
    list: async () => {
      const entries = Array.from({ length: count }, (_, i): KvEntry => {
        const object: KubeObject = pool(i)
        return { key: object.metadata.name, value: JSON.stringify(object), revision: 1n }
      })
      listed.push(...entries.map((entry) => new WeakRef<object>(entry)))
      return { entries, revision: 1n }
    },
    watch: (_prefix: string, _from: bigint, until: AbortSignal) => silent(until),
  }
  const events = watchKin(kv, StoragePool, signal, new VirtualClock())
  expect((await events.next()).value).toMatchObject({ type: 'SYNC' })
  void events.next()
  await collected()
  expect(held(listed)).toBe(0)
})

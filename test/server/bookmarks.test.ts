import { expect, it } from 'vitest'
import type { ResourceDefinition } from '../../src/resources/define.ts'
import { Host } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { startWatch } from '../../src/server/watch.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'
import { machine } from './fixture.ts'

const minute = 60_000

// biome-ignore lint/suspicious/noExplicitAny: frames hold objects, tables and statuses
type Frame = any

/** What a watch has put, one after the other; undefined is its end. */
class Told {
  readonly #frames: Frame[] = []
  #wake = () => {}

  put(frame: Frame): void {
    this.#frames.push(frame)
    this.#wake()
  }

  async next(): Promise<Frame> {
    while (this.#frames.length === 0)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    return this.#frames.shift()
  }
}

/** A watch of machines on a clock that the test moves. */
function watching(query: string, form: 'json' | 'table' | 'metadata' = 'json') {
  const clock = new VirtualClock()
  const timers: (() => void)[] = []
  const after = clock.after.bind(clock)
  clock.after = (ms, fn) => {
    timers.push(fn)
    return after(ms, fn)
  }
  const kv = new MemoryKv()
  const objects = new KvObjects(kv, { clock, newUid: () => crypto.randomUUID() })
  const kind = VirtualMachine as ResourceDefinition
  const path = { kind, namespace: 'default' }
  const begin = () => {
    const watch = startWatch({ path, query: new URLSearchParams(query), form }, objects, clock)
    const told = new Told()
    void watch.tell((text) => void told.put(JSON.parse(text))).then(() => told.put(undefined))
    return { next: () => told.next(), stop: watch.stop }
  }
  const create = (name: string) => objects.create(kind, machine(name, {}, { namespace: 'default' }))
  const elsewhere = (name: string) =>
    objects.create(Host, {
      apiVersion: 'plasmavmc.io/v1alpha1',
      kind: 'Host',
      metadata: { name },
      spec: {},
    } as never)
  const current = async () => (await objects.list(kind, { limit: 1 })).resourceVersion
  return { kv, clock, timers, begin, create, elsewhere, current }
}

it('come every minute, with what has happened elsewhere meanwhile, and not where they are not wanted', async () => {
  const { clock, begin, elsewhere, current } = watching('allowWatchBookmarks=true')
  await elsewhere('h1')
  const watch = begin()
  const first = watch.next()
  await clock.advance(10)
  await elsewhere('h2')
  await clock.advance(minute)
  expect(await first).toEqual({
    type: 'BOOKMARK',
    object: {
      ...{ kind: 'VirtualMachine', apiVersion: 'plasmavmc.io/v1alpha1' },
      metadata: { resourceVersion: await current() },
    },
  })
  // Nothing has changed: nothing is said, until something has.
  const second = watch.next()
  await clock.advance(5 * minute)
  await elsewhere('h3')
  await clock.advance(minute)
  expect((await second).object.metadata.resourceVersion).toBe(await current())
  watch.stop()
})

it('are not sent unasked', async () => {
  const { clock, begin, create, elsewhere } = watching('resourceVersion=0')
  await create('a')
  const watch = begin()
  expect((await watch.next()).type).toBe('ADDED')
  const next = watch.next()
  await elsewhere('h1')
  await clock.advance(3 * minute)
  await create('b')
  expect(await next).toMatchObject({ type: 'ADDED', object: { metadata: { name: 'b' } } })
  watch.stop()
})

it('never get ahead of an event', async () => {
  const { clock, begin, create, elsewhere } = watching('allowWatchBookmarks=true&resourceVersion=0')
  await create('a')
  const watch = begin()
  await watch.next()
  const seen: [string, number][] = []
  let reading = true
  const all = (async () => {
    for (let frame = await watch.next(); frame && reading; frame = await watch.next())
      seen.push([frame.type, Number(frame.object.metadata.resourceVersion)])
  })()
  for (let i = 0; i < 20; i += 1) {
    await Promise.all([create(`b${i}`), elsewhere(`h${i}`), create(`c${i}`), clock.advance(minute)])
  }
  await clock.advance(minute)
  reading = false
  watch.stop()
  await all
  expect(seen.filter(([type]) => type === 'ADDED')).toHaveLength(40)
  expect(seen.filter(([type]) => type === 'BOOKMARK').length).toBeGreaterThan(5)
  const versions = seen.map(([, version]) => version)
  expect(versions).toEqual(versions.toSorted((a, b) => a - b))
})

it('wait for an event that is under way in the moment they are due', async () => {
  const { kv, clock, timers, begin, create } = watching('allowWatchBookmarks=true&resourceVersion=0')
  await create('a')
  const watch = begin()
  await watch.next()
  const next = watch.next()
  await clock.advance(10)
  const [entry] = (await kv.list('/')).entries
  // Published, and the time come, within one turn of the loop.
  void kv.put(entry!.key, entry!.value.replace('Always', 'Halted'), entry!.revision)
  timers.at(-1)!()
  expect(await next).toMatchObject({ type: 'MODIFIED', object: { metadata: { resourceVersion: '2' } } })
  watch.stop()
})

it('comes right before the end, for the client to go on from there', async () => {
  const { clock, begin, elsewhere, current } = watching('allowWatchBookmarks=true&timeoutSeconds=10')
  const watch = begin()
  const last = watch.next()
  await elsewhere('h1')
  await clock.advance(8_000)
  expect((await last).object.metadata.resourceVersion).toBe(await current())
  const end = watch.next()
  await clock.advance(2_000)
  expect(await end).toBeUndefined()
})

it.each([
  ['json', 'VirtualMachine'],
  ['table', 'Table'],
  ['metadata', 'PartialObjectMetadata'],
] as const)('mark the end of the initial events, as %s', async (form, kind) => {
  const query = 'sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true'
  const { begin, create, current } = watching(`${query}&resourceVersion=1`, form)
  for (const name of ['a', 'b']) await create(name)
  const watch = begin()
  expect([(await watch.next()).type, (await watch.next()).type]).toEqual(['ADDED', 'ADDED'])
  const { type, object } = await watch.next()
  expect([type, object.kind, object.metadata.resourceVersion]).toEqual(['BOOKMARK', kind, await current()])
  if (form !== 'table') expect(object.metadata.annotations).toEqual({ 'k8s.io/initial-events-end': 'true' })
  await create('c')
  expect((await watch.next()).type).toBe('ADDED')
  watch.stop()
})

it('without initial events, begins with what comes', async () => {
  const { begin, create } = watching(
    'sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=0',
  )
  await create('a')
  const watch = begin()
  const next = watch.next()
  await new Promise((resolve) => setImmediate(resolve))
  await create('b')
  expect((await next).object.metadata.name).toBe('b')
  watch.stop()
})

it('initial events of a version that has not come are refused as an event', async () => {
  const { begin } = watching('sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99')
  const watch = begin()
  expect(await watch.next()).toMatchObject({ type: 'ERROR', object: { code: 504, reason: 'Timeout' } })
})

import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { silentLog } from '../../src/lib/log.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { StoragePool } from '../../src/resources/kinds.ts'
import { Informer, keyOf, refOf } from '../../src/runtime/informer.ts'
import { ApiError } from '../../src/store/errors.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

let objects: KvObjects
let told: string[]
let stop: AbortController
/** Ends the watch under way with this, in place of the store. */
let breakWatch: (error: Error) => void
let watches: number
/** What the next lists throw. */
let listErrors: Error[]

beforeEach(() => {
  let uid = 0
  objects = new KvObjects(new MemoryKv(), { clock: new VirtualClock(), newUid: () => `uid-${++uid}` })
  told = []
  listErrors = []
  watches = 0
  stop = new AbortController()
  onTestFinished(() => stop.abort())
})

/** The store, whose lists and watches a test can make fail. */
function unreliable(): ObjectStore {
  const failing = Object.create(objects) as ObjectStore
  failing.list = (kind, options) => {
    const error = listErrors.shift()
    return error ? Promise.reject(error) : objects.list(kind, options)
  }
  failing.watch = async function* (kind, options) {
    watches += 1
    const own = new AbortController()
    let failure: Error | undefined
    breakWatch = (error) => {
      failure = error
      own.abort()
    }
    const signal = AbortSignal.any([options.signal, own.signal])
    // Ends by itself or by the abort; either may be an error or not.
    try {
      yield* objects.watch(kind, { ...options, signal })
    } catch (error) {
      if (!own.signal.aborted) throw error
    }
    if (failure) throw failure
  }
  for (const method of ['get', 'create', 'update', 'updateStatus', 'delete'] as const)
    (failing as unknown as Record<string, unknown>)[method] = objects[method].bind(objects)
  return failing
}

async function put(name: string, path: string): Promise<void> {
  const metadata = { name }
  const pool = { apiVersion: apiVersionOf(StoragePool), kind: 'StoragePool', metadata, spec: { path } }
  try {
    const before = await objects.get(StoragePool, { name })
    await objects.update(StoragePool, { ...before, spec: { ...before.spec, path } })
  } catch {
    await objects.create(StoragePool, pool as StoragePool)
  }
}

function start(): { informer: Informer<StoragePool>; running: Promise<void> } {
  const informer = new Informer(unreliable(), StoragePool, silentLog)
  informer.onChange((key, object) => told.push(object ? `${key} ${object.spec.path}` : `${key} gone`))
  return { informer, running: informer.run(stop.signal) }
}

const gone = () => new ApiError('Gone', 'too old')
const heard = (line: string) => expect.poll(() => told, { timeout: 10_000 }).toContain(line)

test('keys of objects with and without a namespace', () => {
  for (const metadata of [{ name: 'a' }, { name: 'a', namespace: 'n' }])
    expect(refOf(keyOf({ metadata }))).toEqual(metadata)
  expect(keyOf({ metadata: { name: 'a', namespace: 'n' } })).toBe('n/a')
})

describe('an informer', () => {
  test('knows nothing until the first list, then all', async () => {
    await put('a', '/a')
    await put('b', '/b')
    const informer = new Informer(objects, StoragePool, silentLog)
    expect(informer.synced).toBe(false)
    expect(informer.list()).toEqual([])
    void informer.run(stop.signal)
    await informer.whenSynced()
    expect(informer.synced).toBe(true)
    expect(informer.list().map(keyOf).sort()).toEqual(['a', 'b'])
    expect(informer.get('a')?.spec.path).toBe('/a')
    expect(informer.get('c')).toBeUndefined()
  })

  test('an empty list is a sync too', async () => {
    const { informer } = start()
    await informer.whenSynced()
    expect(informer.list()).toEqual([])
    expect(told).toEqual([])
  })

  test('follows what is made, changed and removed, in order', async () => {
    const { informer } = start()
    await informer.whenSynced()
    await put('a', '/1')
    await put('a', '/2')
    await objects.delete(StoragePool, { name: 'a' })
    await put('b', '/3')
    await heard('b /3')
    expect(told).toEqual(['a /1', 'a /2', 'a gone', 'b /3'])
    expect(informer.list().map(keyOf)).toEqual(['b'])
  })

  test('shows a listener the state it is told of', async () => {
    const { informer } = start()
    const seen: unknown[] = []
    informer.onChange((key, object) => seen.push(informer.get(key) === object))
    await put('a', '/1')
    await objects.delete(StoragePool, { name: 'a' })
    await heard('a gone')
    expect(seen).toEqual([true, true])
  })

  test('tells nothing to a listener that has left', async () => {
    const { informer } = start()
    const lines: string[] = []
    const leave = informer.onChange((key) => lines.push(key))
    await put('a', '/1')
    await heard('a /1')
    leave()
    await put('b', '/2')
    await heard('b /2')
    expect(lines).toEqual(['a'])
  })
})

test('a listener that throws takes nothing from the others', async () => {
  const { informer } = start()
  await informer.whenSynced()
  informer.onChange(() => {
    throw new Error('mistake')
  })
  const seen: string[] = []
  informer.onChange((key) => seen.push(key))
  await put('a', '/a')
  await expect.poll(() => seen).toEqual(['a'])
  expect(informer.get('a')).toBeDefined()
})

describe('a watch that breaks', () => {
  test('off is begun anew: what changed meanwhile is told, what did not is not', async () => {
    await put('same', '/s')
    await put('changed', '/1')
    await put('removed', '/r')
    const { informer } = start()
    await heard('removed /r')
    told = []
    listErrors = [new ApiError('ServiceUnavailable', 'a moment')]
    breakWatch(gone())
    await objects.delete(StoragePool, { name: 'removed' })
    await put('changed', '/2')
    await put('new', '/n')
    await heard('new /n')
    expect([...told].sort()).toEqual(['changed /2', 'new /n', 'removed gone'])
    expect(informer.list().map(keyOf).sort()).toEqual(['changed', 'new', 'same'])
    await put('later', '/l')
    await heard('later /l')
    expect(watches).toBe(2)
  })

  test('off stays synced: nothing is absent because the store is away', async () => {
    await put('a', '/a')
    const { informer } = start()
    await heard('a /a')
    listErrors = Array.from({ length: 3 }, () => new ApiError('ServiceUnavailable', 'a moment'))
    breakWatch(gone())
    await expect.poll(() => listErrors.length, { timeout: 10_000 }).toBe(0)
    expect(informer.synced).toBe(true)
    expect(informer.get('a')).toBeDefined()
  })

  test('off because an object was replaced under the same name: told with the new one', async () => {
    await put('a', '/1')
    const { informer } = start()
    await heard('a /1')
    const before = informer.get('a')?.metadata.uid
    breakWatch(gone())
    await objects.delete(StoragePool, { name: 'a' })
    await put('a', '/2')
    await heard('a /2')
    expect(informer.get('a')?.metadata.uid).not.toBe(before)
  })
})

describe('the end', () => {
  test('a stop ends it quietly', async () => {
    const { informer, running } = start()
    await informer.whenSynced()
    stop.abort()
    await running
  })

  test('what trying again can’t mend is thrown', async () => {
    listErrors = [new ApiError('Forbidden', 'not for you')]
    const { running } = start()
    await expect(running).rejects.toMatchObject({ reason: 'Forbidden' })
  })

  test('the first list is tried again until there is one', async () => {
    await put('a', '/a')
    listErrors = [new ApiError('Timeout', 'slow'), new ApiError('InternalError', 'oops')]
    const { informer } = start()
    await informer.whenSynced()
    expect(informer.list().map(keyOf)).toEqual(['a'])
  })
})

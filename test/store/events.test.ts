import { beforeEach, describe, expect, test } from 'vitest'
import { type Fields, type Log, silentLog } from '../../src/lib/log.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../../src/resources/define.ts'
import { Event, Host } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { Prometheus } from '../../src/server/prometheus.ts'
import { expireEvents, sweepEvents } from '../../src/store/event-expiry.ts'
import { EventRecorder } from '../../src/store/events.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

let clock: VirtualClock
let objects: KvObjects
let meter: Prometheus
let warned: string[]

beforeEach(() => {
  clock = new VirtualClock()
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => crypto.randomUUID() })
  meter = new Prometheus({ clock })
  warned = []
})

const log: Log = {
  ...silentLog,
  warn: (message: string, fields?: Fields) => void warned.push(`${message} ${fields?.['reason']}`),
}

const recorder = (host = 'host-a') =>
  new EventRecorder(objects, { clock, component: 'agent', host, log, meter })

const web: KubeObject = {
  ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
  metadata: { name: 'web', namespace: 'shop', uid: 'uid-web', resourceVersion: '7' },
}
const vm = VirtualMachine as ResourceDefinition

const crashed = (message: string) => ({ type: 'Warning', reason: 'Crashed', message }) as const
const events = async () => (await objects.list(Event)).items
const counted = async (result: string) =>
  Number(
    new RegExp(`^plasmavmc_events_total\\{result="${result}"\\} (\\d+)$`, 'm').exec(
      await meter.text(),
    )?.[1] ?? 0,
  )

describe('events that are told', () => {
  test('name their object, source and times; again they are counted', async () => {
    const one = recorder()
    one.record(vm, web, crashed('it died'))
    await one.flush()
    await clock.advance(90_000)
    one.record(vm, web, crashed('it died'))
    await one.flush()
    expect(await events()).toMatchObject([
      {
        ...{ type: 'Warning', reason: 'Crashed', message: 'it died', count: 2 },
        ...{ firstTimestamp: '2026-01-01T00:00:00Z', lastTimestamp: '2026-01-01T00:01:30Z' },
        involvedObject: {
          ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', resourceVersion: '7' },
          ...{ name: 'web', namespace: 'shop', uid: 'uid-web' },
        },
        ...{ source: { component: 'agent', host: 'host-a' }, reportingComponent: 'agent' },
        metadata: { namespace: 'shop' },
      },
    ])
    expect([await counted('created'), await counted('counted')]).toEqual([1, 1])
  })

  test('go on counting in the next life of the server', async () => {
    for (let life = 0; life < 3; life += 1) {
      const one = recorder()
      one.record(vm, web, crashed('it died'))
      await one.flush()
    }
    expect(await events()).toMatchObject([{ count: 3 }])
  })

  test('by another host are other events', async () => {
    for (const host of ['host-a', 'host-b']) {
      const one = recorder(host)
      one.record(vm, web, crashed('it died'))
      await one.flush()
    }
    expect((await events()).map(({ source }) => source?.host).sort()).toEqual(['host-a', 'host-b'])
  })

  test('of an object without a namespace are in default, and say that it has none', async () => {
    const one = recorder()
    const host = { apiVersion: apiVersionOf(Host), kind: 'Host', metadata: { name: 'h1', uid: 'uid-h1' } }
    one.record(Host as ResourceDefinition, host, crashed('gone'))
    await one.flush()
    const [event] = await events()
    expect(event?.metadata.namespace).toBe('default')
    expect(event?.involvedObject).not.toHaveProperty('namespace')
  })
})

describe('an object in trouble does not fill the store', () => {
  test('similar events become one, whose message is the last', async () => {
    const one = recorder()
    for (let i = 0; i < 20; i += 1) one.record(vm, web, crashed(`died of ${i}`))
    await one.flush()
    const all = await events()
    expect(all).toHaveLength(10)
    const [combined] = all.filter(({ message }) => message?.startsWith('(combined from similar events): '))
    expect(combined).toMatchObject({ count: 11, message: '(combined from similar events): died of 19' })
  })

  test('a thousand a second are 25 writes, and the count is made up for later', async () => {
    const one = recorder()
    for (let i = 0; i < 1_000; i += 1) one.record(vm, web, crashed('it died'))
    await one.flush()
    expect(await events()).toMatchObject([{ count: 25 }])
    expect(await counted('spam')).toBe(975)
    await clock.advance(300_000)
    one.record(vm, web, crashed('it died'))
    await one.flush()
    expect(await events()).toMatchObject([{ count: 1_001 }])
    expect(warned).toEqual([])
  })

  test('where the store hangs, a bounded number waits, and the rest is dropped and counted', async () => {
    objects.create = () => new Promise(() => {})
    const one = recorder()
    const about = (i: number) => ({ ...web, metadata: { ...web.metadata, uid: `uid-${i}` } })
    for (let i = 0; i < 1_010; i += 1) one.record(vm, about(i), crashed('it died'))
    expect(await counted('dropped')).toBe(10)
    expect(warned).toHaveLength(10)
  })

  test('one that can not be written is told in the log and counted', async () => {
    objects.create = () => Promise.reject(new Error('no room'))
    const one = recorder()
    one.record(vm, web, crashed('it died'))
    await one.flush()
    expect(warned).toEqual(['event not recorded Crashed'])
    expect(await counted('failed')).toBe(1)
  })
})

describe('old events', () => {
  const sweep = () => sweepEvents({ objects, clock, log: silentLog }, new AbortController().signal)

  test('go an hour after they last happened, not before; those that happen again stay', async () => {
    const one = recorder()
    one.record(vm, web, crashed('once'))
    one.record(vm, web, crashed('twice'))
    await one.flush()
    await clock.advance(1_800_000)
    one.record(vm, web, crashed('twice'))
    await one.flush()
    await clock.advance(1_800_000)
    expect(await sweep()).toBe(0)
    await clock.advance(1_000)
    expect(await sweep()).toBe(1)
    expect((await events()).map(({ message }) => message)).toEqual(['twice'])
  })

  test('of a full store all go, over several pages', async () => {
    for (let i = 0; i < 1_100; i += 1)
      await objects.create(Event, {
        ...{ apiVersion: 'v1', kind: 'Event', metadata: { name: `e${i}`, namespace: 'shop' } },
        ...{ type: 'Normal', involvedObject: {}, lastTimestamp: '2025-12-31T22:00:00Z' },
      } as Event)
    expect(await sweep()).toBe(1_100)
    expect(await events()).toEqual([])
  })

  test('are looked for again and again, also after a failure', async () => {
    const stop = new AbortController()
    const list = objects.list.bind(objects)
    objects.list = () => Promise.reject(new Error('away'))
    const loop = expireEvents({ objects, clock, log, everyMs: 1_000, ttlMs: 5_000 }, stop.signal)
    const one = recorder()
    one.record(vm, web, crashed('once'))
    await clock.advance(1_500)
    expect(warned).toHaveLength(1)
    objects.list = list
    await clock.advance(10_000)
    await expect.poll(events).toEqual([])
    stop.abort()
    await loop
  })
})

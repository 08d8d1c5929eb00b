import { describe, expect, expectTypeOf, it, onTestFinished } from 'vitest'
import { EventOverflow, Interrupted } from '../../src/qmp/errors.ts'
import { type EventOf, parseEvent, type QmpEvent } from '../../src/qmp/events.ts'
import { running, settle } from './peer.ts'

const timestamp = { seconds: 1_700_000_000, microseconds: 5 }
const shutdown = { event: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' }, timestamp }
const job = (id: string) => ({ event: 'JOB_STATUS_CHANGE', data: { id, status: 'concluded' }, timestamp })

describe('parseEvent', () => {
  it('tells events apart by their name', () => {
    const event = parseEvent(shutdown)
    if (event.event !== 'SHUTDOWN') throw new Error(event.event)
    expectTypeOf(event.data.guest).toEqualTypeOf<boolean>()
    expect(event.data).toEqual({ guest: true, reason: 'guest-shutdown' })
    expectTypeOf<EventOf<'STOP'>>().not.toHaveProperty('data')
    expectTypeOf<EventOf<'other'>['name']>().toEqualTypeOf<string>()
  })

  it.each<[string, Record<string, unknown>, QmpEvent]>([
    ['an event without data', { event: 'STOP', timestamp }, { event: 'STOP', timestamp }],
    [
      'a reason that a later QEMU added',
      { event: 'RESET', data: { guest: false, reason: 'host-whim', more: 1 }, timestamp },
      { event: 'RESET', data: { guest: false, reason: 'host-whim' }, timestamp },
    ],
    [
      'a name we do not know',
      { event: 'DUMP_COMPLETED', data: { result: {} }, timestamp },
      { event: 'other', name: 'DUMP_COMPLETED', data: { result: {} }, timestamp },
    ],
    [
      'data of another shape',
      { event: 'SHUTDOWN', data: { guest: 'yes' }, timestamp },
      { event: 'other', name: 'SHUTDOWN', data: { guest: 'yes' }, timestamp },
    ],
    [
      'data that is missing',
      { event: 'SHUTDOWN', timestamp },
      { event: 'other', name: 'SHUTDOWN', timestamp },
    ],
    [
      'names of JavaScript',
      { event: 'constructor', timestamp },
      { event: 'other', name: 'constructor', timestamp },
    ],
    ['no time', { event: 'STOP' }, { event: 'STOP', timestamp: { seconds: -1, microseconds: -1 } }],
  ])('takes %s', (_, message, event) => {
    expect(parseEvent(message)).toEqual(event)
  })
})

describe('QmpSession.onEvent', () => {
  it('tells every listener until it is taken off, whatever another one throws', async () => {
    const { session, peer } = await running()
    const warned = Promise.withResolvers<Error>()
    process.once('warning', warned.resolve)
    onTestFinished(() => {
      process.off('warning', warned.resolve)
    })
    const seen: string[] = []
    session.onEvent(() => {
      throw new Error('a listener is broken')
    })
    const stop = session.onEvent(({ event }) => seen.push(event))
    peer.say({ event: 'STOP', timestamp })
    expect((await warned.promise).message).toBe('a listener is broken')
    await settle()
    stop()
    peer.say({ event: 'RESUME', timestamp })
    await settle()
    expect([seen, session.state]).toEqual([['STOP'], 'running'])
  })
})

describe('QmpSession.events', () => {
  it('listens from before it returns, to what was asked for', async () => {
    const { session, peer } = await running()
    const events = session.events(['SHUTDOWN', 'other'])
    peer.say({ event: 'STOP', timestamp }, shutdown, { event: 'NEW', timestamp })
    await settle()
    expectTypeOf(events).toExtend<AsyncIterable<EventOf<'SHUTDOWN'> | EventOf<'other'>>>()
    expect((await events.next()).value).toEqual(shutdown)
    expect((await events.next()).value).toEqual({ event: 'other', name: 'NEW', timestamp })
  })

  it('hands events to several who wait, in order', async () => {
    const { session, peer } = await running()
    const events = session.events(['JOB_STATUS_CHANGE'])
    const waiting = [events.next(), events.next()]
    peer.say(job('a'), job('b'))
    const ids = (await Promise.all(waiting)).map(({ value }) => value?.data.id)
    expect(ids).toEqual(['a', 'b'])
  })

  it('gives a reader that fell behind what it kept, and then says that some were lost', async () => {
    const { session, peer } = await running()
    const slow = session.events(['JOB_STATUS_CHANGE'], { limit: 3 })
    const other = session.events(['JOB_STATUS_CHANGE'])
    peer.say(...['a', 'b', 'c', 'd', 'e'].map(job))
    await settle()
    const seen: string[] = []
    const reading = (async () => {
      for await (const event of slow) seen.push(event.data.id)
    })()
    await expect(reading).rejects.toBeInstanceOf(EventOverflow)
    expect(seen).toEqual(['a', 'b', 'c'])
    expect(await slow.next()).toEqual({ done: true, value: undefined })
    for (const id of 'abcde') expect((await other.next()).value?.data.id).toBe(id)
  })

  it('ends quietly with close, after what came before it', async () => {
    const { session, peer } = await running()
    const events = session.events(['SHUTDOWN'])
    peer.say(shutdown)
    await settle()
    session.close()
    expect((await events.next()).value).toEqual(shutdown)
    expect((await events.next()).done).toBe(true)
  })

  it('says that the connection ended, also to one who comes later', async () => {
    const { session, peer } = await running()
    const events = session.events(['SHUTDOWN'])
    const waiting = events.next()
    waiting.catch(() => {})
    peer.stream.end()
    await expect(waiting).rejects.toBeInstanceOf(Interrupted)
    expect((await events.next()).done).toBe(true)
    await expect(session.events(['STOP']).next()).rejects.toMatchObject({ code: 'Closed' })
  })

  it('ends with the reason of its signal', async () => {
    const { session } = await running()
    const abort = new AbortController()
    const waiting = session.events(['STOP'], { signal: abort.signal }).next()
    waiting.catch(() => {})
    abort.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    await expect(session.events(['STOP'], { signal: abort.signal }).next()).rejects.toThrow('enough')
  })

  it('keeps nothing for a reader that left', async () => {
    const { session, peer } = await running()
    const events = session.events(['JOB_STATUS_CHANGE'], { limit: 1 })
    peer.say(job('a'))
    for await (const event of events) {
      expect(event.data.id).toBe('a')
      break
    }
    peer.say(job('b'), job('c'), job('d'))
    await settle()
    expect(await events.next()).toEqual({ done: true, value: undefined })
    await using disposed = session.events(['STOP'])
    await disposed[Symbol.asyncDispose]()
    expect((await disposed.next()).done).toBe(true)
  })
})

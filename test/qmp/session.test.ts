import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Message } from '../../src/qmp/codec.ts'
import { CommandError, Interrupted, ProtocolError, QmpTimeout } from '../../src/qmp/errors.ts'
import { ManualClock, pair, running, settle, version } from './peer.ts'

const status = { running: true, status: 'running' }
/** Attached at once: a promise that rejects while a test looks elsewhere is no unhandled rejection. */
function held<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

describe('QmpSession.execute', () => {
  it('gives each command its own answer, in whatever order they come', async () => {
    const { session, peer } = await running()
    const answers = Promise.all([
      session.execute('query-name'),
      session.execute('query-uuid'),
      session.execute('qom-get', { path: '/machine', property: 'type' }),
    ])
    const [name, uuid, type] = (await peer.take(3)) as [Message, Message, Message]
    expect(type).toMatchObject({ execute: 'qom-get', arguments: { path: '/machine', property: 'type' } })
    peer.say({ id: type['id'], return: 'q35' }, { id: name['id'], return: { name: 'web' } })
    peer.say({ id: uuid['id'], return: { UUID: 'u' } })
    expect(await answers).toEqual([{ name: 'web' }, { UUID: 'u' }, 'q35'])
  })

  it('keeps answers apart, whatever their order, split, events and strangers between them', async () => {
    const order = fc.uniqueArray(fc.nat(19), { minLength: 20, maxLength: 20 })
    await fc.assert(
      fc.asyncProperty(order, fc.integer({ min: 1, max: 200 }), async (shuffled, size) => {
        const { session, peer } = await running()
        const answers = shuffled.map((_, i) => session.execute('qom-get', { path: '/', property: `p${i}` }))
        const sent = await peer.take(20)
        const noise = [{ event: 'STOP' }, { id: 'p1', return: 'stranger' }, { id: 7, return: 'stranger' }]
        const said = shuffled.flatMap((i) => [
          noise[i % noise.length],
          { id: sent[i]?.['id'], return: Object(sent[i]?.['arguments']).property },
        ])
        const text = Buffer.from(said.map((one) => `${JSON.stringify(one)}\r\n`).join(''))
        for (let at = 0; at < text.length; at += size) peer.raw(text.subarray(at, at + size))
        expect(await Promise.all(answers)).toEqual(shuffled.map((_, i) => `p${i}`))
        session.close()
      }),
      { numRuns: 50 },
    )
  })

  it('never uses an id that another session used', async () => {
    const [one, two] = [await running(), await running()]
    for (const { session } of [one, two]) held(session.execute('stop'))
    expect((await one.peer.next())['id']).not.toBe((await two.peer.next())['id'])
  })

  it('tells what QEMU refused, and goes on', async () => {
    const { session, peer } = await running()
    const refused = held(session.execute('device_del', { id: 'nope' }))
    const { id } = await peer.next()
    peer.say({ id, error: { class: 'DeviceNotFound', desc: "Device 'nope' not found" } })
    await expect(refused).rejects.toBeInstanceOf(CommandError)
    await expect(refused).rejects.toMatchObject({ class: 'DeviceNotFound', command: 'device_del' })
    expect(session.state).toBe('running')
  })

  it.each([
    [{ return: { running: 'yes', status: 'running' } }, 'query-status answered'],
    [{ return: { running: true, status: 'a b' } }, 'query-status answered'],
    [{ return: null }, 'query-status answered'],
    [{ error: null }, 'query-status failed with null'],
  ])('names the command whose answer %o it can not read, and goes on', async (answer, message) => {
    const { session, peer } = await running()
    const asked = held(session.execute('query-status'))
    peer.say({ ...answer, id: (await peer.next())['id'] })
    await expect(asked).rejects.toBeInstanceOf(ProtocolError)
    await expect(asked).rejects.toMatchObject({
      code: 'BadAnswer',
      message: expect.stringContaining(message),
    })
    expect(session.state).toBe('running')
  })

  it('passes a run state that a later QEMU added', async () => {
    const { session, peer } = await running()
    const asked = session.execute('query-status')
    await peer.answer({ running: false, status: 'hibernated', since: 3 })
    expect(await asked).toEqual({ running: false, status: 'hibernated' })
  })

  it('waits as long as the command may take, or as told, and drops a late answer', async () => {
    const { session, peer, clock } = await running()
    const usual = held(session.execute('query-name'))
    const slow = held(session.execute('blockdev-del', { 'node-name': 'n' }))
    const short = held(session.execute('query-status', undefined, { timeoutMs: 50 }))
    const ids = (await peer.take(3)).map((sent) => sent['id'])
    clock.advance(50)
    await expect(short).rejects.toMatchObject({ message: 'query-status got no answer within 50 ms' })
    clock.advance(9_950)
    await expect(usual).rejects.toBeInstanceOf(QmpTimeout)
    peer.say({ id: ids[2], return: status }, { id: ids[1], return: {} })
    expect(await slow).toEqual({})
    expect([session.state, clock.timers]).toEqual(['running', 0])
  })

  it('stops waiting when its signal says so', async () => {
    const { session, peer, clock } = await running()
    const abort = new AbortController()
    const asked = held(session.execute('query-status', undefined, { signal: abort.signal }))
    const { id } = await peer.next()
    abort.abort(new Error('enough'))
    await expect(asked).rejects.toThrow('enough')
    const never = session.execute('stop', undefined, { signal: abort.signal })
    await expect(never).rejects.toThrow('enough')
    peer.say({ id, return: status })
    const next = session.execute('query-name')
    expect(await peer.answer({})).toMatchObject({ execute: 'query-name' })
    await next
    expect(clock.timers).toBe(0)
  })

  it('lets no more than 256 commands wait, those that nobody waits for included', async () => {
    const { session, peer, clock } = await running()
    for (let i = 0; i < 256; i += 1) held(session.execute('query-status'))
    const sent = await peer.take(256)
    await expect(session.execute('query-status')).rejects.toMatchObject({ code: 'Busy' })
    clock.advance(10_000)
    await expect(session.execute('query-status')).rejects.toMatchObject({ code: 'Busy' })
    peer.say({ id: sent[3]?.['id'], return: status })
    await settle()
    const asked = session.execute('query-status')
    await peer.answer(status)
    expect(await asked).toEqual(status)
  })

  it('goes out of band where QEMU takes it so', async () => {
    const { session, peer } = await running()
    const asked = [
      session.execute('query-yank'),
      session.execute('query-yank', undefined, { inBand: true }),
      session.execute('query-status'),
    ]
    expect(await peer.answer([])).toHaveProperty('exec-oob', 'query-yank')
    expect(await peer.answer([])).toHaveProperty('execute', 'query-yank')
    expect(await peer.answer(status)).toHaveProperty('execute', 'query-status')
    await Promise.all(asked)
    const plain = await running({}, { QMP: { version, capabilities: [] } })
    held(plain.session.execute('query-yank'))
    expect(await plain.peer.next()).toHaveProperty('execute', 'query-yank')
  })

  it('sends no text that QEMU can not read', async () => {
    const { session, peer } = await running()
    const asked = session.execute('device_del', { id: 'a\ud800' })
    await expect(asked).rejects.toMatchObject({ code: 'BadText' })
    expect([session.state, peer.received]).toEqual(['running', []])
  })
})

describe('the end of a session', () => {
  it('sends nothing after close, and says so', async () => {
    const { session, peer, ours, clock } = await running()
    const asked = held(session.execute('query-status'))
    await peer.next()
    session.close()
    await expect(asked).rejects.toMatchObject({ code: 'Interrupted', message: /^query-status: / })
    await expect(session.execute('stop')).rejects.toMatchObject({ code: 'Closed' })
    expect(await session.closed).toEqual({})
    expect([session.state, ours.destroyed, clock.timers, peer.received]).toEqual(['closed', true, 0, []])
    session.close()
  })

  it('interrupts every command, each by its name', async () => {
    const { session, peer, clock } = await running()
    const asked = [held(session.execute('query-status')), held(session.execute('quit'))]
    await peer.next()
    peer.raw('{"return": {"run')
    peer.stream.end()
    await expect(asked[0]).rejects.toBeInstanceOf(Interrupted)
    await expect(asked[0]).rejects.toThrow(
      'query-status: the connection ended within a message, after 16 bytes',
    )
    await expect(asked[1]).rejects.toThrow(/^quit: /)
    expect((await session.closed).error).toBeInstanceOf(Interrupted)
    expect([session.state, clock.timers]).toEqual(['closed', 0])
  })

  it.each([
    ['an error without an id', { error: { class: 'GenericError', desc: 'JSON parse error' } }, 'Unparsed'],
    ['a second greeting', { QMP: { version, capabilities: [] } }, 'Greeting'],
    ['what is neither answer nor event', { id: 'x' }, 'BadMessage'],
  ])('comes with %s', async (_, message, code) => {
    const { session, peer, ours } = await running()
    const asked = held(session.execute('query-status'))
    await peer.next()
    peer.say(message)
    await expect(asked).rejects.toBeInstanceOf(Interrupted)
    expect((await session.closed).error).toMatchObject({ code })
    expect(ours.destroyed).toBe(true)
  })

  it('comes with garbage, after what was said before it', async () => {
    const { session, peer } = await running()
    const asked = held(session.execute('query-status'))
    const lost = held(session.execute('query-name'))
    const { id } = await peer.next()
    peer.raw(`${JSON.stringify({ id, return: status })}\r\n{"ret\r\n`)
    expect(await asked).toEqual(status)
    await expect(lost).rejects.toBeInstanceOf(Interrupted)
    expect((await session.closed).error).toMatchObject({ code: 'BadJson' })
  })

  it('says nothing more to listeners, even of the same chunk', async () => {
    const { session, peer } = await running()
    const seen: string[] = []
    session.onEvent(({ event }) => {
      seen.push(event)
      session.close()
    })
    peer.say({ event: 'STOP' }, { event: 'RESUME' })
    await session.closed
    expect(seen).toEqual(['STOP'])
  })

  it('is told once, with what ended it', async () => {
    const { session, ours } = await running()
    ours.destroy(new Error('reset'))
    expect((await session.closed).error).toMatchObject({ message: 'reset' })
  })
})

describe('a fixture', () => {
  it('counts timers', () => {
    const clock = new ManualClock()
    const cancel = clock.after(5, () => {})
    clock.after(6, () => {})
    expect(clock.timers).toBe(2)
    cancel()
    clock.advance(6)
    expect([clock.timers, pair().ours.destroyed]).toEqual([0, false])
  })
})

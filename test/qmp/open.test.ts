import { describe, expect, it } from 'vitest'
import { ConnectError, HandshakeError, Interrupted, QmpTimeout } from '../../src/qmp/errors.ts'
import { QmpSession } from '../../src/qmp/session.ts'
import { greeting, ManualClock, type Peer, pair, running, settle, version } from './peer.ts'

const say = (...messages: readonly unknown[]) => messages.map((one) => `${JSON.stringify(one)}\r\n`).join('')

describe('QmpSession.open', () => {
  it('negotiates what was offered, and leaves no timer', async () => {
    const { ours, peer } = pair()
    const clock = new ManualClock()
    const opening = QmpSession.open(ours, { clock })
    const negotiation = await peer.handshake()
    const session = await opening
    expect(negotiation).toMatchObject({ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } })
    expect([session.state, session.oob, session.version, clock.timers]).toEqual(['running', true, version, 0])
  })

  it('enables nothing that was not offered', async () => {
    const { ours, peer } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock() })
    const negotiation = await peer.handshake({ QMP: { version, capabilities: ['magic'] } })
    expect(negotiation).not.toHaveProperty('arguments')
    expect((await opening).oob).toBe(false)
  })

  it('takes no answer of an earlier client for its own', async () => {
    const { ours, peer } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock() })
    peer.say({ return: {}, id: 'p1' }, { error: { class: 'GenericError', desc: 'late' }, id: 'x-1' })
    peer.say(greeting)
    const { id } = await peer.next()
    peer.say({ return: { of: 'another' }, id: 'x-1' }, { return: {}, id })
    expect((await opening).state).toBe('running')
  })

  const failures: Record<
    string,
    { says: string | Uint8Array; ends?: boolean; error: object; code?: string }
  > = {
    'who speaks HTTP': { says: 'HTTP/1.1 400 Bad Request\r\n\r\n', error: HandshakeError, code: 'Greeting' },
    'who sends binary garbage': {
      says: new Uint8Array([0, 255, 10]),
      error: HandshakeError,
      code: 'Greeting',
    },
    'who never ends its line': {
      says: 'x'.repeat(17 * 1024 * 1024),
      error: HandshakeError,
      code: 'Greeting',
    },
    'a greeting of nothing': { says: say({ QMP: null }), error: HandshakeError, code: 'Greeting' },
    'a greeting without a version': {
      says: say({ QMP: { capabilities: [] } }),
      error: HandshakeError,
      code: 'Greeting',
    },
    'a greeting without capabilities': {
      says: say({ QMP: { version } }),
      error: HandshakeError,
      code: 'Greeting',
    },
    'an object that says nothing': { says: say({ hello: 1 }), error: HandshakeError, code: 'Greeting' },
    'two greetings': { says: say(greeting, greeting), error: HandshakeError, code: 'Greeting' },
    'an end before the greeting': { says: '', ends: true, error: Interrupted },
    'an end within the greeting': { says: '{"QMP": {"ver', ends: true, error: Interrupted },
    'an end before the negotiation': { says: say(greeting), ends: true, error: Interrupted },
  }

  it.each(Object.entries(failures))(
    'refuses %s, and leaves nothing behind',
    async (_, { says, ends, error, code }) => {
      const { ours, peer } = pair()
      const clock = new ManualClock()
      const opening = QmpSession.open(ours, { clock })
      opening.catch(() => {})
      peer.raw(says)
      if (ends) peer.stream.end()
      await expect(opening).rejects.toBeInstanceOf(error)
      if (code) await expect(opening).rejects.toHaveProperty('code', code)
      expect([ours.destroyed, clock.timers]).toEqual([true, 0])
    },
  )

  it('says how far a broken greeting came', async () => {
    const { ours, peer } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock() })
    opening.catch(() => {})
    peer.raw('{"QMP":')
    peer.stream.end()
    await expect(opening).rejects.toThrow('within a message, after 7 bytes')
  })

  it('is refused by a QEMU that refuses the negotiation', async () => {
    const { ours, peer } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock() })
    opening.catch(() => {})
    peer.say(greeting)
    const { id } = await peer.next()
    peer.say({ id, error: { class: 'GenericError', desc: 'no such capability' } })
    await expect(opening).rejects.toMatchObject({ code: 'Negotiation', message: /no such capability/ })
    expect(ours.destroyed).toBe(true)
  })

  it('never runs when it ended right after the negotiation', async () => {
    const { ours, peer } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock() })
    opening.catch(() => {})
    peer.say(greeting)
    const { id } = await peer.next()
    peer.raw(`${say({ id, return: {} })}garbage\r\n`)
    await expect(opening).rejects.toBeInstanceOf(HandshakeError)
    expect(ours.destroyed).toBe(true)
  })

  it.each([
    ['greeting', (_: Peer) => {}, 'no QMP greeting within 700 ms'],
    ['negotiation', (peer: Peer) => peer.say(greeting), 'QMP negotiation got no answer within 700 ms'],
  ])('gives up on a silent %s at its deadline', async (_, begin, message) => {
    const { ours, peer } = pair()
    const clock = new ManualClock()
    const opening = QmpSession.open(ours, { clock, deadlineMs: 700 })
    opening.catch(() => {})
    begin(peer)
    await settle()
    clock.advance(699)
    await settle()
    expect(ours.destroyed).toBe(false)
    clock.advance(1)
    await expect(opening).rejects.toBeInstanceOf(QmpTimeout)
    await expect(opening).rejects.toMatchObject({ message, hint: expect.stringContaining('another client') })
    expect([ours.destroyed, clock.timers]).toEqual([true, 0])
  })

  it('can be aborted, at any point and before', async () => {
    const reason = new ConnectError('Stop', 'enough')
    for (const begin of [() => {}, (peer: Peer) => peer.say(greeting)]) {
      const { ours, peer } = pair()
      const clock = new ManualClock()
      const abort = new AbortController()
      const opening = QmpSession.open(ours, { clock, signal: abort.signal })
      opening.catch(() => {})
      begin(peer)
      await settle()
      abort.abort(reason)
      await expect(opening).rejects.toBe(reason)
      expect([ours.destroyed, clock.timers]).toEqual([true, 0])
    }
    const { ours } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock(), signal: AbortSignal.abort(reason) })
    await expect(opening).rejects.toBe(reason)
    expect(ours.destroyed).toBe(true)
  })

  it('is not ended by its signal once it runs', async () => {
    const abort = new AbortController()
    const { session } = await running({ signal: abort.signal })
    abort.abort()
    expect(session.state).toBe('running')
  })

  it('fails with the error of its stream', async () => {
    const { ours } = pair()
    const opening = QmpSession.open(ours, { clock: new ManualClock() })
    ours.destroy(new Error('reset'))
    await expect(opening).rejects.toThrow('reset')
  })
})

import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { getEventListeners, once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import {
  type AskOptions,
  askPeer,
  formatPeer,
  type PeerQuestion,
  type PeerReply,
  PeerServer,
  parsePeer,
} from '../../src/host/peers.ts'

const key = randomBytes(32)
const open: { close(): unknown }[] = []
afterEach(async () => {
  for (const one of open.splice(0)) await one.close()
})

/** A host `b` that notes what it is asked. */
async function peer(reply: (question: PeerQuestion) => PeerReply | Promise<PeerReply>, own?: Buffer) {
  const asked: [PeerQuestion['ask'], string][] = []
  const server = await PeerServer.open({
    ...{ listen: { host: '127.0.0.1', port: 0 }, host: 'b', key: () => own ?? key },
    answer: async (question, from) => {
      asked.push([question.ask, from])
      return reply(question)
    },
  })
  open.push(server)
  return { asked, address: `127.0.0.1:${server.port}` }
}

const ask = (address: string, more: Partial<AskOptions> = {}, question: PeerQuestion = { ask: 'lost' }) =>
  askPeer(question, { ...{ address, to: 'b', from: 'a', key, timeoutMs: 10_000 }, ...more })

/** Passes datagrams on, as a network that does what `twist` says. */
async function network(address: string, twist: (packet: Buffer, toPeer: boolean) => readonly Buffer[]) {
  const to = parsePeer(address)!
  const [near, far] = [createSocket('udp4'), createSocket('udp4')]
  near.bind(0, '127.0.0.1')
  far.bind(0, '127.0.0.1')
  await Promise.all([once(near, 'listening'), once(far, 'listening')])
  let asker: { port: number; address: string } | undefined
  near.on('message', (packet, from) => {
    asker = from
    for (const one of twist(packet, true)) far.send(one, to.port, to.host)
  })
  far.on('message', (packet) => {
    for (const one of twist(packet, false)) near.send(one, asker!.port, asker!.address)
  })
  open.push(near, far)
  return `127.0.0.1:${near.address().port}`
}

describe('a question', () => {
  test('is answered, and says when it was sent', async () => {
    const { address, asked } = await peer(() => ({ word: 'lost', why: 'no answer from etcd' }))
    expect(await ask(address)).toMatchObject({
      word: 'lost',
      why: 'no answer from etcd',
      askedAt: expect.any(Number),
    })
    expect(asked).toEqual([['lost', 'a']])
  })

  test('is given up, or not asked at all, once its asker is told to end', async () => {
    const stop = new AbortController()
    const { address, asked } = await peer(() => {
      stop.abort()
      return new Promise<never>(() => {})
    })
    expect(await ask(address, { signal: stop.signal, timeoutMs: 60_000 })).toBeUndefined()
    expect(getEventListeners(stop.signal, 'abort')).toEqual([])
    expect(await ask(address, { signal: stop.signal, timeoutMs: 60_000 })).toBeUndefined()
    expect(asked).toHaveLength(1)
  })

  test('for consent carries the host and the version', async () => {
    const { address } = await peer((question) => ({ word: 'yes', why: JSON.stringify(question) }))
    const question = { ask: 'consent', host: 'c', resourceVersion: '42' } as const
    expect((await ask(address, {}, question))?.why).toContain('"host":"c","resourceVersion":"42"')
  })

  test('is asked again when it or its answer is lost, and decided on once', async () => {
    const { address, asked } = await peer(() => ({ word: 'have', why: '' }))
    let questions = 0
    let answers = 0
    const through = await network(address, (packet, toPeer) => {
      if (toPeer) return ++questions === 1 ? [] : [packet]
      return ++answers === 1 ? [] : [packet]
    })
    expect(await ask(through)).toMatchObject({ word: 'have' })
    expect(asked).toHaveLength(1)
    expect(questions).toBeGreaterThan(2)
  })

  test.each<[string, Partial<AskOptions>]>([
    ['with another key', { key: randomBytes(32) }],
    ['for another host', { to: 'c' }],
  ])('%s gets none', async (_, more) => {
    const { address, asked } = await peer(() => ({ word: 'have', why: '' }))
    expect(await ask(address, { timeoutMs: 600, ...more })).toBeUndefined()
    expect(asked).toEqual([])
  })

  test.each(['127.0.0.1:1', 'nonsense', '127.0.0.1:99999', '[::1'])(
    'to %s has no answer',
    async (address) => {
      expect(await ask(address, { timeoutMs: 300 })).toBeUndefined()
    },
  )

  test('that hangs ends at its deadline', async () => {
    const { address } = await peer(() => new Promise(() => {}))
    expect(await ask(address, { timeoutMs: 400 })).toBeUndefined()
  })
})

describe('an answer', () => {
  test('to another question, or changed on its way, does not count', async () => {
    let word: PeerReply['word'] = 'lost'
    const { address } = await peer(() => ({ word, why: '' }))
    const old: Buffer[] = []
    const recording = await network(address, (packet, toPeer) => {
      if (!toPeer) old.push(packet)
      return [packet]
    })
    await ask(recording)
    word = 'have'
    const replaying = await network(address, (packet, toPeer) => (toPeer ? [packet] : [...old, packet]))
    expect(await ask(replaying)).toMatchObject({ word: 'have' })
    const forging = await network(address, (packet, toPeer) =>
      toPeer ? [packet] : [Buffer.from(packet.toString().replace('have', 'lost'))],
    )
    expect(await ask(forging, { timeoutMs: 600 })).toBeUndefined()
  })

  test('by one who claims to be another does not count', async () => {
    const { address } = await peer(() => ({ word: 'lost', why: '' }))
    const asked = ask(address, { to: 'c', timeoutMs: 400 })
    expect(await asked).toBeUndefined()
  })
})

test('rubbish is not answered and does no harm', async () => {
  const { address, asked } = await peer(() => ({ word: 'have', why: '' }))
  const { host, port } = parsePeer(address)!
  const socket = createSocket('udp4')
  open.push(socket)
  for (const text of ['', '{', 'null', '[]', '{"body":"{}","mac":"00"}', `{"body":"${'x'.repeat(5_000)}"}`])
    await new Promise((sent) => socket.send(text, port, host, sent))
  expect(await ask(address)).toMatchObject({ word: 'have' })
  expect(asked).toHaveLength(1)
})

test('a port that is in use is told by the name of its setting', async () => {
  const { address } = await peer(() => ({ word: 'have', why: '' }))
  const options = { host: 'c', key: () => key, answer: async () => ({ word: 'have', why: '' }) as const }
  const taken = PeerServer.open({ ...options, listen: parsePeer(address)! })
  await expect(taken).rejects.toThrow(`--peer-listen: ${address} (UDP) is in use`)
})

test('addresses are read as they are written', () => {
  for (const text of ['10.0.0.1:7444', '[fe80::1]:7444', 'host.example:1'])
    expect(formatPeer(parsePeer(text)!)).toBe(text)
})

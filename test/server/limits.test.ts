import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Lease } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { defaultLimits } from '../../src/server/limits.ts'
import { machines } from './fixture.ts'
import { codesOf, type Door, door } from './raw.ts'

const small = { requestMs: 400, idleMs: 600, connections: 40, pendingBytes: 300_000, restMs: 300 }
const limits = { ...defaultLimits, ...small }
const leases = '/apis/coordination.k8s.io/v1/namespaces/default/leases'

let at: Door
let sockets: Socket[]
beforeEach(async () => {
  at = await door({ limits })
  sockets = []
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  await at.close()
})

/** A connection that is written to by hand, with what it was answered. */
async function open(first = ''): Promise<{ socket: Socket; text: () => string; closed: Promise<unknown> }> {
  const socket = connect(Number(at.host.split(':')[1]), '127.0.0.1')
  sockets.push(socket)
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.on('error', () => {})
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await once(socket, 'connect')
  socket.write(first)
  return { socket, text: () => text, closed }
}

/** Sends one byte after the other, slowly, for as long as somebody listens. */
function drip(socket: Socket, byte: string): () => void {
  const timer = setInterval(() => socket.writable && socket.write(byte), 20)
  return () => clearInterval(timer)
}

const head = `POST ${leases} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`

it.each([
  ['says nothing', '', undefined],
  ['says its head slowly', 'GET / HTTP/1.1\r\nx-a: ', 'a'],
  ['says one header after the other', 'GET / HTTP/1.1\r\n', 'x: y\r\n'],
  ['says its body slowly', `${head}content-length: 100000\r\n\r\n`, 'a'],
  ['says chunk after chunk', `${head}transfer-encoding: chunked\r\n\r\n`, '1\r\na\r\n'],
])('a client that %s is cut', async (_, first, byte) => {
  const { socket, closed, text } = await open(first)
  const stop = byte === undefined ? () => {} : drip(socket, byte)
  await closed.finally(stop)
  expect(codesOf(text()).filter((code) => code !== 408)).toEqual([])
})

it('a client that does not read its answer is cut', { timeout: 60_000 }, async () => {
  const big = 'x'.repeat(200_000)
  for (let i = 0; i < 60; i += 1)
    await at.server.objects.create(Lease, {
      ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', spec: {} },
      metadata: { name: `l${i}`, namespace: 'default', annotations: { a: big } },
    })
  const { socket, closed } = await open()
  socket.pause()
  socket.write(at.signed({ target: leases }))
  const sent = once(at.server.app.server, 'request')
  const [request] = await sent
  // This side notices nothing while it reads nothing: what counts is that the server lets go.
  await once(request.socket, 'close')
  socket.destroy()
  await closed
})

it('a watch may be silent for longer than a connection may be idle', async () => {
  const watch = await open(at.signed({ target: `${machines}?watch=true&resourceVersion=1` }))
  const idle = await open(at.signed({ headers: { connection: 'keep-alive' } }).slice(0, 10))
  await idle.closed
  const second = await open('')
  await second.closed
  expect(watch.socket.destroyed).toBe(false)

  await at.server.objects.create(VirtualMachine, {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', spec: {} },
    metadata: { name: 'late', namespace: 'default' },
  } as never)
  await expect.poll(watch.text).toContain('"name":"late"')
})

it('takes only so many connections, and more when some are gone', async () => {
  const all = await Promise.all(Array.from({ length: limits.connections }, () => open()))
  const one = await open(at.signed())
  await one.closed
  expect(one.text()).toBe('')
  for (const { socket } of all) socket.destroy()
  await expect
    .poll(async () => codesOf(await at.send(at.signed()).catch(() => '')), { timeout: 10_000 })
    .toEqual([200])
})

it('receives only so much at once from clients it does not know yet', async () => {
  const body = 'x'.repeat(100_000)
  const half = `${head}content-length: 200000\r\n\r\n${body}`
  const slow = await Promise.all(Array.from({ length: 6 }, () => open(half)))
  await Promise.all(slow.map(({ closed }) => closed))
  const codes = slow.flatMap(({ text }) => codesOf(text()))
  expect(codes).toContain(429)
  expect(codes.filter((code) => code !== 429 && code !== 408)).toEqual([])
  expect(slow.map(({ text }) => text()).join()).toContain('"retryAfterSeconds":1')
  // What they held is free again.
  const sent = at.signed({
    ...{ method: 'POST', target: leases, headers: { 'content-type': 'application/json' } },
    body: JSON.stringify({ metadata: { name: 'after', annotations: { a: body } } }),
  })
  expect(codesOf(await at.send(sent))).toEqual([201])
})

it('says that a body is too large, whether its length was said or not', async () => {
  const large = ' '.repeat(limits.bodyBytes + 1)
  const answers = [
    await at.send(`${head}content-length: ${large.length}\r\n\r\n`, { open: true }),
    await at.send(
      `${head}transfer-encoding: chunked\r\n\r\n${large.length.toString(16)}\r\n${large}\r\n0\r\n\r\n`,
      { open: true },
    ),
  ]
  expect(codesOf(answers[0] ?? '')).toEqual([413])
  expect([413, 429]).toContain(codesOf(answers[1] ?? '')[0])
})

it('says so to a client that sends all of it before it listens', async () => {
  await at.close()
  at = await door()
  const large = ' '.repeat(defaultLimits.bodyBytes + 4_000_000)
  const { socket, text, closed } = await open()
  socket.pause()
  socket.write(`${head}content-length: ${large.length}\r\n\r\n`)
  await new Promise((resolve) => socket.write(large, resolve))
  socket.resume()
  await closed
  expect(codesOf(text())).toEqual([413])
})

it('says so, and no more, to one that never ends', async () => {
  const { socket, closed, text } = await open(`${head}content-length: 10000000000\r\n\r\n`)
  const stop = drip(socket, 'a')
  await closed.finally(stop)
  expect(codesOf(text())).toEqual([413])
})

it.each([
  ['is no HTTP', 'hello\r\n\r\n', 400, 'BadRequest'],
  ['says too much', `GET / HTTP/1.1\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`, 431, 'BadRequest'],
  ['says its head slowly', 'GET / HTTP/1.1\r\nx', 408, 'Timeout'],
])('a client that %s gets a Status', async (_, bytes, code, reason) => {
  const text = await at.send(bytes, { open: true })
  expect(codesOf(text)).toEqual([code])
  expect(JSON.parse(text.slice(text.indexOf('{')))).toMatchObject({ kind: 'Status', reason, code })
})

it.each([
  ['too long', limits.bodyBytes + 1, /^HTTP\/1\.1 413 /],
  ['short enough', 2, /^HTTP\/1\.1 100 /],
])('a client that asks before it sends a body that is %s is told so', async (_what, length, answer) => {
  const head = `POST ${leases} HTTP/1.1\r\nHost: ${at.host}\r\nContent-Type: application/json`
  const { text } = await open(`${head}\r\nContent-Length: ${length}\r\nExpect: 100-continue\r\n\r\n`)
  await expect.poll(text, { timeout: 5_000 }).toMatch(answer)
})

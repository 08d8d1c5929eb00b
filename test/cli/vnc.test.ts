import { once } from 'node:events'
import { connect } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { listenOf } from '../../src/cli/vnc.ts'
import { type FakeServer, fakeServer } from './fake-server.ts'

let server: FakeServer
let stop: AbortController
beforeEach(async () => {
  server = await fakeServer((_, r) => r.end())
  stop = new AbortController()
})
afterEach(() => server.close())

/** Runs `vnc` until it is stopped. @returns the port it listens on, and what it said at its end */
async function proxy(...more: string[]) {
  let told = ''
  const ended = server.run(['vnc', 'web', ...more], { signal: stop.signal, onOut: (text) => (told += text) })
  await expect.poll(() => told).toMatch(/127\.0\.0\.1:\d+ \(VNC\)/)
  return { port: Number(/127\.0\.0\.1:(\d+)/.exec(told)?.[1]), ended }
}

async function conversation(port: number, words: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.write(words)
  await expect.poll(() => text.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(words.length)
  socket.destroy()
  return text
}

test('a local port leads every viewer to the display', async () => {
  server.onSocket = (socket) => socket.on('message', (data) => socket.send(data))
  const { port, ended } = await proxy()
  expect(await conversation(port, 'RFB 003.008\n')).toBe('RFB 003.008\n')
  const long = 'x'.repeat(300_000)
  expect(await Promise.all([conversation(port, long), conversation(port, 'b')])).toEqual([long, 'b'])
  stop.abort()
  expect(await ended).toMatchObject({ code: 0, err: '' })
  await expect(once(connect(port, '127.0.0.1'), 'connect')).rejects.toThrow(/ECONNREFUSED/)
})

test('what is wrong with the machine is said at once, as the server words it', async () => {
  expect(await server.run(['vnc', 'web'])).toMatchObject({
    ...{ code: 1, out: '' },
    err: expect.stringContaining('(Conflict): not running'),
  })
})

test('why a display closed is told, and the port stays', async () => {
  server.onSocket = (socket) => socket.on('message', () => socket.close(1011, 'VNC was off'))
  const { port, ended } = await proxy()
  const socket = connect(port, '127.0.0.1')
  socket.resume().write('x')
  await once(socket, 'close')
  stop.abort()
  expect((await ended).err).toContain('the display of web closed: VNC was off')
})

test('a port that others would reach is warned of, and one in use refused', async () => {
  server.onSocket = () => {}
  const taken = server.address.split(':')[1]
  expect(await server.run(['vnc', 'web', '--listen', `127.0.0.1:${taken}`])).toMatchObject({
    ...{ code: 1 },
    err: expect.stringContaining('it is in use'),
  })
  let told = ''
  const ended = server.run(['vnc', 'web', '--listen', '0.0.0.0:0'], {
    ...{ signal: stop.signal, onOut: (text: string) => (told += text) },
  })
  await expect.poll(() => told).toContain('0.0.0.0:')
  stop.abort()
  expect((await ended).err).toContain('VNC asks for no password')
})

test('an address to listen on is host:port', () => {
  expect(listenOf('[::1]:5901')).toEqual({ host: '::1', port: 5901 })
  for (const wrong of ['', '5901', 'a b:1', 'h:99999', 'h:'])
    expect(() => listenOf(wrong)).toThrow(/no address/)
})

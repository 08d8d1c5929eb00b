import { afterEach, beforeEach, expect, test } from 'vitest'
import type { WebSocket } from 'ws'
import { type FakeServer, fakeServer, refuse, reply } from './fake-server.ts'

let server: FakeServer
let phase: string | undefined
beforeEach(async () => {
  phase = 'Stopped'
  server = await fakeServer((_, r) =>
    phase === undefined
      ? refuse(r, 404, 'NotFound', 'not found')
      : reply(r, 200, { metadata: { name: 'web' }, status: { phase } }),
  )
})
afterEach(() => server.close())

test('piped input reaches the guest, and what it says at once is not lost', async () => {
  let heard = ''
  server.onSocket = (socket) => {
    socket.send('login: ')
    socket.on('message', (data) => {
      heard += String(data)
      socket.send(Buffer.from('hello\r\n'))
    })
  }
  expect(await server.run(['console', 'web'], { stdin: 'root\n' })).toEqual({
    code: 0,
    out: 'login: hello\r\n',
    err: '',
  })
  expect(heard).toBe('root\n')
})

test('a guest that says nothing more after the input is left alone', async () => {
  server.onSocket = (socket) => socket.on('message', () => socket.send('# '))
  expect(await server.run(['console', 'web'], { stdin: '\n' })).toMatchObject({ code: 0, out: '# ' })
})

test('why a console closed is told', async () => {
  server.onSocket = (socket) => socket.close(1011, 'the machine stopped')
  const { code, err } = await server.run(['console', 'web'])
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining('closed: the machine stopped') })
})

test('a refused upgrade is the Status it was refused with', async () => {
  const { code, err } = await server.run(['console', 'web'])
  expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining('(Conflict): not running') })
})

test('Ctrl-C leaves', async () => {
  const stop = new AbortController()
  server.onSocket = () => stop.abort()
  expect((await server.run(['console', 'web'], { signal: stop.signal })).code).toBe(0)
})

const ended = (why: string) => ({
  code: 1,
  err: expect.stringContaining(`the console of web closed: ${why}`),
})

test('a machine that stops is told as such, and nobody is said to have left', async () => {
  server.onSocket = (socket) => socket.close(1000, 'the machine ended')
  const { code, err } = await server.run(['console', 'web'], { terminal: 80 })
  expect({ code, err }).toEqual(ended('the machine stopped\nweb is Stopped'))
  expect(err).not.toContain('Left')
  phase = undefined
  expect(await server.run(['console', 'web'])).toMatchObject(ended('the machine was deleted'))
})

test('a server that goes away is told as such, whatever it said last', async () => {
  const sayings = [(socket: WebSocket) => socket.terminate(), (socket: WebSocket) => socket.close(1000)]
  for (const say of sayings) {
    const other = await fakeServer(() => {})
    let closed: Promise<void> | undefined
    other.onSocket = (socket) => {
      say(socket)
      closed = other.close()
    }
    const { code, err } = await other.run(['console', 'web'], { terminal: 80 })
    await closed
    expect({ code, err }).toEqual(ended('the server went away'))
    expect(err).not.toMatch(/Left|1006/)
  }
})

test('a connection that broke while the machine runs is neither', async () => {
  phase = 'Running'
  server.onSocket = (socket) => socket.terminate()
  expect(await server.run(['console', 'web'])).toMatchObject(
    ended('the connection to the server broke\nweb is Running'),
  )
})

test('who presses Ctrl-] has left', async () => {
  server.onSocket = (socket) => socket.send('login: ')
  const { code, err } = await server.run(['console', 'web'], { terminal: 80, stdin: '\u001d' })
  expect({ code, err }).toEqual({ code: 0, err: expect.stringContaining('Left web; it runs on.') })
})

import { afterEach, beforeEach, expect, test } from 'vitest'
import { type FakeServer, fakeServer } from './fake-server.ts'

let server: FakeServer
beforeEach(async () => {
  server = await fakeServer((_, r) => r.end())
})
afterEach(() => server.close())

test('piped input reaches the guest, and what it says at once is not lost', async () => {
  let heard = ''
  server.onSocket = (socket) => {
    socket.send('login: ')
    socket.on('message', (data) => {
      heard += String(data)
      socket.send(Buffer.from('hello\r\n'))
      socket.close(1000)
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

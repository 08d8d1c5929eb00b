import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { type Lab, lab, machines } from './fixture.ts'

let dir: string
let guest: Server
let sockets: Socket[]
let server: Lab
let address: string

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'pvc-'))
  const file = join(dir, 'console.sock')
  sockets = []
  guest = createServer((socket) => sockets.push(socket)).listen(file)
  await once(guest, 'listening')
  server = await lab({ consoleOf: async () => file })
  await server.running('vm')
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  address = `127.0.0.1:${(server.app.server.address() as AddressInfo).port}`
})
afterEach(async () => {
  await server.app.close()
  for (const socket of sockets) socket.destroy()
  guest.close()
  rmSync(dir, { recursive: true })
})

function attach(authorization = 'Bearer admin', name = 'vm', verb = 'console') {
  const client = new WebSocket(`ws://${address}${machines}/${name}/${verb}`, { headers: { authorization } })
  let text = ''
  client.on('message', (data: Buffer) => {
    text += data.toString()
  })
  return { client, text: () => text }
}

async function refusal(...how: Parameters<typeof attach>) {
  const { client } = attach(...how)
  client.on('error', () => {})
  const [, answer] = await once(client, 'unexpected-response')
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  return [answer.statusCode, JSON.parse(Buffer.concat(chunks).toString()).reason]
}

it('shares one connection among clients, and shows who joins what came before', async () => {
  const first = attach()
  await once(first.client, 'open')
  await expect.poll(() => sockets.length).toBe(1)
  sockets[0]!.write('login: ')
  await expect.poll(first.text).toBe('login: ')
  const second = attach()
  await expect.poll(second.text).toBe('login: ')
  const typed = once(sockets[0]!, 'data')
  second.client.send('root\n')
  expect(String((await typed)[0])).toBe('root\n')
  sockets[0]!.write('# ')
  await expect.poll(first.text).toBe('login: # ')
  await expect.poll(second.text).toBe('login: # ')
  expect(sockets).toHaveLength(1)
  const released = once(sockets[0]!, 'close')
  sockets[0]!.resume()
  first.client.close()
  second.client.close()
  await released
})

it('ends when the machine does', async () => {
  const { client } = attach()
  await once(client, 'open')
  await expect.poll(() => sockets.length).toBe(1)
  const closed = once(client, 'close')
  sockets[0]!.destroy()
  const [code, why] = await closed
  expect([code, String(why)]).toEqual([1000, 'the machine ended'])
})

it('cuts a client that sends more than the machine takes', async () => {
  const { client } = attach()
  await once(client, 'open')
  await expect.poll(() => sockets.length).toBe(1)
  sockets[0]!.pause()
  const closed = once(client, 'close')
  const chunk = Buffer.alloc(60_000)
  const flood = setInterval(() => client.readyState === WebSocket.OPEN && client.send(chunk), 1)
  const [code] = await closed.finally(() => clearInterval(flood))
  expect(code).toBe(1013)
})

it('says as an HTTP Status why not', async () => {
  expect(await refusal('')).toEqual([401, 'Unauthorized'])
  expect(await refusal('Bearer guest')).toEqual([403, 'Forbidden'])
  expect(await refusal('Bearer admin', 'no')).toEqual([404, 'NotFound'])
  expect(await refusal('Bearer admin', 'vm', 'log')).toEqual([404, 'NotFound'])
  await server.call('POST', machines, { metadata: { name: 'off' } })
  expect(await refusal('Bearer admin', 'off')).toEqual([409, 'Conflict'])
  const codes = server.audits.map((record) => (record['responseStatus'] as { code: number }).code)
  expect(codes).toEqual(expect.arrayContaining([401, 403, 404, 409]))
})

it('a server that stops does not say that the machine ended', async () => {
  const { client } = attach()
  await once(client, 'open')
  await expect.poll(() => sockets.length).toBe(1)
  const closed = once(client, 'close')
  await server.app.close()
  const [code, reason] = await closed
  expect([code, String(reason)]).toEqual([1001, 'the server stops'])
})

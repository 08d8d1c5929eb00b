import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { heartbeatMs } from '../../src/server/heartbeat.ts'
import { defaultLimits } from '../../src/server/limits.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'
import { type Lab, lab, machines } from './fixture.ts'

const fair = { ...defaultLimits.fair, consolesOfOne: 2, consoles: 3, ratePerSecond: 1, burst: 8 }

let dir: string
let qemu: Server
let sockets: Socket[]
let server: Lab
let clock: VirtualClock
let port: number

/** A server to which `Bearer NAME` is the user NAME, with a machine that has a console and a display. */
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'pvh-'))
  sockets = []
  const file = join(dir, 'machine.sock')
  qemu = createServer((socket) => sockets.push(socket)).listen(file)
  await once(qemu, 'listening')
  clock = new VirtualClock()
  server = await lab({
    ...{ clock, limits: { ...defaultLimits, fair }, consoleOf: async () => file, vncOf: async () => file },
    authorize: () => true,
    authenticate: ({ headers }) => {
      const name = /Bearer (\w+)/.exec(JSON.stringify(headers))?.[1] ?? ''
      return { ok: true, identity: { name, groups: [] } }
    },
  })
  await server.running('vm')
  const vm = await server.objects.get(VirtualMachine, { name: 'vm', namespace: 'default' })
  const devices = { ...vm.spec.devices, vnc: true }
  await server.objects.update(VirtualMachine, { ...vm, spec: { ...vm.spec, devices } })
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  port = (server.app.server.address() as AddressInfo).port
})
afterEach(async () => {
  await server.app.close()
  for (const socket of sockets) socket.destroy()
  qemu.close()
  rmSync(dir, { recursive: true })
})

function attach(user: string, verb = 'console', name = 'vm'): WebSocket {
  const client = new WebSocket(`ws://127.0.0.1:${port}${machines}/${name}/${verb}`, {
    headers: { authorization: `Bearer ${user}` },
  })
  client.on('error', () => {})
  return client
}

async function open(user: string, verb?: string): Promise<WebSocket> {
  const client = attach(user, verb)
  const refused = once(client, 'unexpected-response').then(([, { statusCode }]) => {
    throw new Error(`refused with ${statusCode}`)
  })
  await Promise.race([once(client, 'open'), refused])
  return client
}

async function refusal(...how: Parameters<typeof attach>) {
  const client = attach(...how)
  const opened = once(client, 'open').then(() => {
    throw new Error('it was let in')
  })
  const refused = once(client, 'unexpected-response') as Promise<[unknown, IncomingMessage]>
  const [, answer] = await Promise.race([refused, opened])
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  const status = JSON.parse(Buffer.concat(chunks).toString()) as { reason: string; message: string }
  return { code: answer.statusCode, retryAfter: answer.headers['retry-after'], ...status }
}

async function shown(series: string): Promise<number> {
  const { text } = await server.call('GET', '/metrics', undefined, { authorization: 'Bearer prometheus' })
  const line = text.split('\n').find((one) => one.startsWith(`${series} `))
  return Number(line?.slice(series.length) ?? Number.NaN)
}

const underWay = () =>
  shown('plasmavmc_apiserver_longrunning_requests{verb="connect",resource="virtualmachines"}')

it('one user has only so many consoles and displays, another gets in beside them', async () => {
  const first = await open('a')
  await open('a', 'vnc')
  for (const verb of ['console', 'vnc'])
    expect(await refusal('a', verb)).toMatchObject({
      ...{ code: 429, retryAfter: '5', reason: 'TooManyRequests' },
      message:
        'a has 2 consoles and displays, which is as many as one may have (end some of them, or have --consoles-per-user raised)',
    })
  await open('b')
  expect(await underWay()).toBe(3)
  const refused = 'plasmavmc_apiserver_request_total{verb="connect",resource="virtualmachines"'
  expect(await shown(`${refused},subresource="vnc",code="429"}`)).toBe(1)
  expect(await shown(`${refused},subresource="console",code="101"}`)).toBe(2)
  // All of the server are taken.
  expect(await refusal('c')).toMatchObject({
    ...{ code: 429, retryAfter: '5' },
    message: 'all 3 consoles and displays of this server are taken (try again once one has ended)',
  })
  first.close()
  await expect.poll(underWay).toBe(2)
  await open('c')
})

it('what was refused, or was no WebSocket after all, takes no place', async () => {
  await server.call('POST', machines, { metadata: { name: 'off' } })
  for (let i = 0; i < 3; i += 1) expect((await refusal('a', 'console', 'off')).code).toBe(409)
  const raw = connect(port, '127.0.0.1')
  const request = [
    `GET ${machines}/vm/console HTTP/1.1`,
    ...['host: h', 'authorization: Bearer a', 'connection: upgrade', 'upgrade: websocket'],
    ...['sec-websocket-version: 13', 'sec-websocket-key: none', '', ''],
  ]
  raw.write(request.join('\r\n'))
  const [answer] = await once(raw, 'data')
  expect(String(answer)).toMatch(/^HTTP\/1\.1 400 /)
  raw.destroy()
  await open('a')
  await open('a')
  expect((await refusal('a')).code).toBe(429)
})

it('requests for them have the rate of other requests', async () => {
  const codes: (number | undefined)[] = []
  for (let i = 0; i < 10; i += 1) codes.push((await refusal('a', 'console', 'none')).code)
  expect(codes).toEqual([...Array(8).fill(404), 429, 429])
  expect((await refusal('b', 'console', 'none')).code).toBe(404)
})

it('a client that is gone without a word is let go of, one that only listens is not', async () => {
  const quiet = await open('a')
  const gone = await open('a')
  // Nothing comes from it any more, not even the end of its connection.
  const { _socket: socket } = gone as unknown as { _socket: Socket }
  socket.pause()
  socket.write = () => true
  for (let i = 0; i < 4; i += 1) {
    const pong = once(quiet, 'ping')
    await clock.advance(heartbeatMs)
    if (quiet.readyState === WebSocket.OPEN) await pong
    await expect
      .poll(async () => [await underWay(), quiet.readyState])
      .toEqual([i < 1 ? 2 : 1, WebSocket.OPEN])
  }
  await open('a')
  socket.destroy()
})

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { type Lab, lab, machine, machines } from './fixture.ts'

let dir: string
let qemu: Server
let sockets: Socket[]
let server: Lab
let address: string
let file: string

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'pvv-'))
  file = join(dir, 'vnc.sock')
  sockets = []
  qemu = createServer((socket) => sockets.push(socket)).listen(file)
  await once(qemu, 'listening')
  server = await lab({ vncOf: async () => file })
  await server.running('vm')
  const vm = await server.objects.get(VirtualMachine, { name: 'vm', namespace: 'default' })
  await server.objects.update(VirtualMachine, {
    ...vm,
    spec: { ...vm.spec, devices: { ...vm.spec.devices, vnc: true } },
  })
  await server.running('blind')
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  address = `127.0.0.1:${(server.app.server.address() as AddressInfo).port}`
})
afterEach(async () => {
  await server.app.close()
  for (const socket of sockets) socket.destroy()
  qemu.close()
  rmSync(dir, { recursive: true })
})

function view(protocols: string[] = [], name = 'vm', authorization = 'Bearer admin') {
  const client = new WebSocket(`ws://${address}${machines}/${name}/vnc`, protocols, {
    headers: { authorization },
  })
  const chunks: Buffer[] = []
  client.on('message', (data: Buffer) => chunks.push(data))
  return { client, bytes: () => Buffer.concat(chunks) }
}

async function refusal(name: string, authorization?: string) {
  const { client } = view([], name, authorization)
  client.on('error', () => {})
  const [, answer] = await once(client, 'unexpected-response')
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  const { reason, message } = JSON.parse(Buffer.concat(chunks).toString())
  return [answer.statusCode, reason, message]
}

it('joins each viewer to the display by a connection of its own, both ways', async () => {
  const [first, second] = [view(), view()]
  await Promise.all([once(first.client, 'open'), once(second.client, 'open')])
  await expect.poll(() => sockets.length).toBe(2)
  for (const socket of sockets) socket.on('data', (data) => socket.write(data))
  first.client.send('RFB 003.008\n')
  second.client.send('second')
  await expect.poll(() => `${first.bytes()}`).toBe('RFB 003.008\n')
  await expect.poll(() => `${second.bytes()}`).toBe('second')
})

it('carries more than it may hold at once, whole and in order', async () => {
  const { client, bytes } = view()
  await once(client, 'open')
  await expect.poll(() => sockets.length).toBe(1)
  const picture = Buffer.from(Uint8Array.from({ length: 6 << 20 }, (_, i) => i * 7))
  client.pause()
  sockets[0]?.write(picture)
  client.resume()
  await expect.poll(() => bytes().length, { timeout: 20_000 }).toBe(picture.length)
  expect(bytes().equals(picture)).toBe(true)
})

it.each([
  [[], ''],
  [['plain.kubevirt.io'], 'plain.kubevirt.io'],
  [['binary'], 'binary'],
  [['binary', 'x', 'plain.kubevirt.io'], 'plain.kubevirt.io'],
])('of the subprotocols %j it takes "%s"', async (offered, taken) => {
  const { client } = view([...offered])
  await once(client, 'open')
  expect(client.protocol).toBe(taken)
})

it('ends with the machine, and frees the display when the viewer leaves', async () => {
  const { client } = view()
  await once(client, 'open')
  await expect.poll(() => sockets.length).toBe(1)
  const ended = once(client, 'close')
  sockets[0]?.destroy()
  const [code, why] = await ended
  expect([code, String(why)]).toEqual([1000, 'the machine ended'])
  const next = view()
  await once(next.client, 'open')
  await expect.poll(() => sockets.length).toBe(2)
  const freed = once(sockets[1]!, 'close')
  sockets[1]!.resume()
  next.client.close()
  await freed
})

it('says what is wrong before anything is opened', async () => {
  expect(await refusal('blind')).toEqual([
    ...[409, 'Conflict'],
    'blind has no display: VNC is off (set spec.devices.vnc to true, then restart it)',
  ])
  await server.call('POST', machines, machine('off', { devices: { vnc: true } }))
  expect(await refusal('off')).toEqual([409, 'Conflict', expect.stringContaining('is not running')])
  expect(await refusal('no')).toEqual([404, 'NotFound', expect.any(String)])
  expect(await refusal('vm', 'Bearer guest')).toEqual([
    403,
    'Forbidden',
    expect.stringContaining('virtualmachines/vnc'),
  ])
  expect(await refusal('vm', '')).toEqual([401, 'Unauthorized', expect.any(String)])
  expect((await server.call('GET', `${machines}/vm/vnc`)).json).toMatchObject({
    code: 400,
    reason: 'BadRequest',
  })
})

it('says so where the machine was started without a display', async () => {
  qemu.close()
  rmSync(file, { force: true })
  const { client } = view()
  const [code, why] = await once(client, 'close')
  expect([code, String(why)]).toEqual([1011, 'VNC was off when the machine started: restart it'])
})

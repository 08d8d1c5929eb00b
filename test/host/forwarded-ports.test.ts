import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { checkForwardedPorts } from '../../src/host/forwarded-ports.ts'
import { machine } from './machines.ts'

async function taken(protocol: 'tcp' | 'udp', address: string): Promise<number> {
  if (protocol === 'tcp') {
    const server = createServer().listen(0, address)
    onTestFinished(() => void server.close())
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  }
  // As QEMU's own NAT binds them: with SO_REUSEADDR, which lets two such sockets share a port.
  const socket = createSocket({ type: 'udp4', reuseAddr: true })
  onTestFinished(() => void socket.close())
  socket.bind(0, address)
  await once(socket, 'listening')
  return socket.address().port
}

const check = (protocol: 'tcp' | 'udp', hostAddress: string, hostPort: number) => {
  const forwards = [{ protocol, hostAddress, hostPort, guestPort: 22 }]
  return checkForwardedPorts(machine({ networks: [{ name: 'n', user: { forwards } }] }).spec)
}

test.each([
  ['tcp', '0.0.0.0', '127.0.0.1'],
  ['tcp', '127.0.0.1', '0.0.0.0'],
  ['udp', '127.0.0.1', '127.0.0.1'],
  ['udp', '0.0.0.0', '127.0.0.1'],
  ['udp', '127.0.0.1', '0.0.0.0'],
] as const)('%s: what is taken on %s is taken on %s', async (protocol, holder, asked) => {
  const port = await taken(protocol, holder)
  await expect(check(protocol, asked, port)).rejects.toMatchObject({
    code: 'PortTaken',
    message: expect.stringContaining('spec.networks[0].user.forwards[0].hostPort'),
  })
})

test('another protocol, another address and a port that is free again are not in the way', async () => {
  const port = await taken('tcp', '127.0.0.1')
  await check('tcp', '127.0.0.2', port)
  await check('udp', '127.0.0.1', port)
  const once = await taken('udp', '127.0.0.3')
  await check('udp', '127.0.0.4', once)
  await check('udp', '127.0.0.4', once)
})

test('an address this host does not have is named', async () => {
  await expect(check('tcp', '192.0.2.1', 40_001)).rejects.toMatchObject({ code: 'PortTaken' })
})

test.each([
  ['127.0.0.1', '127.0.0.1', true],
  ['127.0.0.1', '0.0.0.0', true],
  ['0.0.0.0', '127.0.0.1', true],
  ['127.0.0.1', '127.0.0.2', false],
])('a machine that wants one port twice, of %s and %s: refused is %s', async (one, other, refused) => {
  const port = await taken('udp', '127.0.0.5')
  const user = (hostAddress: string) => ({ forwards: [{ hostAddress, hostPort: port, guestPort: 22 }] })
  const networks = [
    { name: 'a', user: user(one) },
    { name: 'b', user: user(other) },
  ]
  const checked = checkForwardedPorts(machine({ networks }).spec)
  const wanted = {
    code: 'PortTaken',
    message: expect.stringContaining('spec.networks[1].user.forwards[0].hostPort: tcp'),
  }
  if (refused) await expect(checked).rejects.toMatchObject(wanted)
  else await checked
})

import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../src/lib/clock.ts'
import { silentLog } from '../src/lib/log.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { MemoryKv } from '../src/store/memory.ts'
import { grpcNames, startGrpc } from '../src/wire-grpc.ts'

/** Takes a port of this machine, unless somebody has it already. */
async function take(port: number): Promise<number> {
  const server = createServer()
  onTestFinished(() => void server.close())
  const listening = once(server, 'listening')
  server.listen(port, '127.0.0.1')
  // It is taken already where a server runs on this machine.
  await listening.catch((error: unknown) => expect(error).toMatchObject({ code: 'EADDRINUSE' }))
  return (server.address() as AddressInfo | null)?.port ?? port
}

function deps() {
  const said: [string, unknown][] = []
  const note = (message: string, fields?: unknown) => void said.push([message, fields])
  const options = { clock: systemClock, newUid: () => crypto.randomUUID() }
  return {
    said,
    objects: new KvObjects(new MemoryKv({ historyLimit: 10 }), options),
    ...{ clock: systemClock, log: { ...silentLog, warn: note, info: note } },
    authenticate: () => ({ ok: false as const, code: 'InvalidToken' as const, message: '' }),
    ...{ authorize: () => false, audit: () => {}, tls: { key: '', cert: '' } },
  }
}

const hostName = 'host-1'

test('an address that was asked for must be free', async () => {
  const port = await take(0)
  const starting = startGrpc({ hostName, grpcListen: { host: '127.0.0.1', port } }, deps())
  await expect(starting).rejects.toMatchObject({
    ...{ code: 'PortTaken', message: `--grpc-listen: 127.0.0.1:${port} is in use` },
    hint: expect.stringContaining('choose another address with --grpc-listen'),
  })
  const nowhere = startGrpc({ hostName, grpcListen: { host: '192.0.2.1', port: 1 } }, deps())
  await expect(nowhere).rejects.toMatchObject({
    message: '--grpc-listen: 192.0.2.1:1: this machine has no such address',
  })
})

test('without a word a server goes on where another one has the default address', async () => {
  await take(50_051)
  const given = deps()
  const grpc = await startGrpc({ hostName, grpcListen: undefined }, given)
  await grpc.close()
  const why = '--grpc-listen: 127.0.0.1:50051 is in use; another server may run already; '
  expect(given.said).toEqual([['gRPC is not served', { why: expect.stringContaining(why) }]])
})

test('it says where it listens, and none is none', async () => {
  const given = deps()
  const grpc = await startGrpc({ hostName, grpcListen: { host: '::1', port: 0 } }, given)
  await grpc.close()
  const address = expect.stringMatching(/^\[::1\]:\d+$/)
  expect(given.said).toEqual([['gRPC is served', { address, tls: false }]])
  await (await startGrpc({ hostName, grpcListen: 'none' }, given)).close()
  expect(given.said).toHaveLength(1)
})

test('the certificate names the address of gRPC', () => {
  expect(grpcNames({ grpcListen: undefined })).toEqual([])
  expect(grpcNames({ grpcListen: 'none' })).toEqual([])
  expect(grpcNames({ grpcListen: { host: 'vm.example', port: 1 } })).toEqual(['vm.example'])
})

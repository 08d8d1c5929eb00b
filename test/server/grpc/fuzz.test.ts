import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type ClientHttp2Session, connect } from 'node:http2'
import { gzipSync } from 'node:zlib'
import { status } from '@grpc/grpc-js'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { grpcLab } from './fixture.ts'

const paths = [
  ...[
    'CreateVm',
    'GetVm',
    'ListVms',
    'StartVm',
    'StopVm',
    'DeleteVm',
    'WatchVms',
    'MigrateVm',
    'GetCapabilities',
  ].map((method) => `/plasmavmc.VmService/${method}`),
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
  '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
  '/plasmavmc.VmService/__proto__',
  '/constructor',
]

/** A message as gRPC frames it: compressed or not, its length, its bytes. */
function framed(bytes: Uint8Array, compressed = false): Buffer {
  const head = Buffer.alloc(5)
  head[0] = compressed ? 1 : 0
  head.writeUInt32BE(bytes.length, 1)
  return Buffer.concat([head, bytes])
}

/** Sends a body to a method. @returns the status of the answer, -1 where the stream is reset */
async function send(
  session: ClientHttp2Session,
  path: string,
  body: Buffer,
  more: object = {},
): Promise<number> {
  const stream = session.request({
    ...{ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' },
    ...{ authorization: 'Bearer admin', 'grpc-timeout': '300m', ...more },
  })
  let code = -1
  const note = (headers: object) => {
    const given = (headers as Record<string, unknown>)['grpc-status']
    if (given !== undefined) code = Number(given)
  }
  stream
    .on('response', note)
    .on('trailers', note)
    .on('error', () => {})
  stream.resume()
  stream.end(body)
  await once(stream, 'close')
  return code
}

async function open() {
  const lab = await grpcLab()
  const session = connect(`http://${lab.address}`)
  session.on('error', () => {})
  onTestFinished(async () => {
    session.destroy()
    await lab.close()
  })
  return { lab, session }
}

test('nothing that is sent harms the server or makes a machine', async () => {
  const { lab, session } = await open()
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => framed(bytes)),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => framed(bytes, true)),
  )
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...paths), body, async (path, bytes) => {
      const code = await send(session, path, bytes)
      // What grpc-js says of a handler that throws.
      expect(code).not.toBe(status.UNKNOWN)
      expect(session.destroyed).toBe(false)
    }),
    { numRuns: 150 },
  )
  await lab.client.call('ListVms')
  expect((await lab.objects.list(VirtualMachine)).items).toEqual([])
})

test('what unpacks to more than a message may have is refused', async () => {
  const { lab, session } = await open()
  const gzip = { 'grpc-encoding': 'gzip', 'grpc-timeout': '20S' }
  const bomb = framed(gzipSync(Buffer.alloc(64 << 20)), true)
  expect(await send(session, '/plasmavmc.VmService/CreateVm', bomb, gzip)).toBe(status.RESOURCE_EXHAUSTED)
  const said = framed(randomBytes(10))
  said.writeUInt32BE(0xffff_ffff, 1)
  const wide = await send(session, '/plasmavmc.VmService/CreateVm', said, { 'grpc-timeout': '20S' })
  expect(wide).toBe(status.RESOURCE_EXHAUSTED)
  await lab.client.call('ListVms')
})

test('a name that JavaScript knows is a name as any other', async () => {
  const { lab } = await open()
  for (const name of ['__proto__', 'constructor', 'toString']) {
    const labels = JSON.parse(`{"${name}":"x"}`) as Record<string, string>
    const request = { name: 'bad', labels, spec_json: `{"${name}":{"polluted":"yes"}}` }
    const refusal = await lab.client.refusal('CreateVm', request)
    expect(refusal.code).toBe(status.INVALID_ARGUMENT)
    expect(await lab.client.refusal('GetVm', { id: `default/${name}` })).toMatchObject({
      code: /[A-Z_]/.test(name) ? status.INVALID_ARGUMENT : status.NOT_FOUND,
    })
  }
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
})

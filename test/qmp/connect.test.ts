import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { connectQmp } from '../../src/qmp/connect.ts'
import { Busy, ConnectError, Interrupted } from '../../src/qmp/errors.ts'
import { greeting, Peer } from './peer.ts'

let folder: string
let path: string
let server: Server | undefined
const sockets = new Set<Socket>()

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pv-qmp-'))
  path = join(folder, 'qmp.sock')
})

afterEach(() => {
  for (const socket of sockets) socket.destroy()
  sockets.clear()
  server?.close()
  rmSync(folder, { recursive: true, force: true })
})

/** A QEMU that does with each connection what the test wants. */
async function listen(serve: (socket: Socket) => void): Promise<void> {
  server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    serve(socket)
  }).listen(path)
  await once(server, 'listening')
}

const options = { clock: systemClock, waitMs: 0, handshakeMs: 20_000 }

describe('connectQmp', () => {
  it('says that there is no socket, at once where nothing is to be waited for', async () => {
    const missing = connectQmp(path, options)
    await expect(missing).rejects.toBeInstanceOf(ConnectError)
    await expect(missing).rejects.toMatchObject({ code: 'no-socket', message: expect.stringContaining(path) })
  })

  it('waits for the folder, the socket and who listens', async () => {
    const opening = connectQmp(path, { ...options, waitMs: 20_000 })
    await listen((socket) => void new Peer(socket).handshake())
    const session = await opening
    expect(session.state).toBe('running')
    session.close()
  })

  it('can be aborted while it waits for a socket or for a greeting', async () => {
    const enough = new Error('enough')
    const first = new AbortController()
    const waiting = connectQmp(path, { ...options, waitMs: 600_000, signal: first.signal })
    first.abort(enough)
    await expect(waiting).rejects.toBe(enough)
    const accepted = Promise.withResolvers<Socket>()
    await listen(accepted.resolve)
    const second = new AbortController()
    const silent = connectQmp(path, { ...options, handshakeMs: 600_000, signal: second.signal })
    const ended = once(await accepted.promise.then((socket) => socket.resume()), 'close')
    second.abort(enough)
    await expect(silent).rejects.toBe(enough)
    await ended
  })
})

describe('a session over a socket', () => {
  it('stops sending to a QEMU that does not read, and is interrupted when it dies', async () => {
    await listen((socket) => {
      void new Peer(socket).handshake().then(() => socket.pause())
    })
    const session = await connectQmp(path, options)
    const names = Array.from({ length: 200 }, () => 'x'.repeat(64 * 1024))
    const sent = names.map((id) => session.execute('device_del', { id }))
    const results = Promise.allSettled(sent)
    await expect(session.execute('query-status')).rejects.toBeInstanceOf(Busy)
    for (const socket of sockets) socket.destroy()
    const errors = (await results).map((result) => (result.status === 'rejected' ? result.reason : undefined))
    const busy = errors.filter((error) => error instanceof Busy).length
    expect(errors.filter((error) => error instanceof Interrupted).length).toBe(names.length - busy)
    // Node holds 1 MiB and the kernel's buffer comes on top, of 12 MiB that we wanted to send.
    expect(busy).toBeGreaterThan(150)
    expect(session.state).toBe('closed')
  })

  it('is interrupted by a connection that is reset within a message', async () => {
    const half = JSON.stringify(greeting).slice(0, 20)
    await listen((socket) => {
      socket.write(half, () => socket.destroy())
    })
    await expect(connectQmp(path, options)).rejects.toBeInstanceOf(Interrupted)
  })
})

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import { probeNbd } from '../../src/host/nbd-probe.ts'
import { sleep, systemClock } from '../../src/lib/clock.ts'
import { PlasmaError } from '../../src/lib/errors.ts'
import { blankFile, NbdServer } from './nbd-server.ts'

const clock = systemClock
const field = 'spec.disks[0].nbd'
const never = new AbortController().signal
let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'nbd-'))
})
afterAll(() => rmSync(dir, { recursive: true }))

const probe = (port: number, exportName = 'x', host = '127.0.0.1') =>
  probeNbd({ host, port, exportName }, field, { signal: never, clock })

/** Text and advice of the refusal. */
async function refusalOf(probing: Promise<unknown>): Promise<string> {
  const error = await probing.then(
    () => new Error('it was accepted'),
    (thrown: unknown) => thrown,
  )
  return error instanceof PlasmaError ? `${error.code}: ${error.message}; ${error.hint}` : String(error)
}

/** Probes until the server, which was only just started, listens. */
async function onceUp<T>(probing: () => Promise<T>): Promise<T> {
  for (const end = performance.now() + 20_000; ; ) {
    try {
      return await probing()
    } catch (error) {
      if (!String(error).includes('nothing listens') || performance.now() > end) throw error
      await sleep(clock, 20)
    }
  }
}

describe('a real qemu-nbd', () => {
  test('tells of its export, is left as it was, and of an unknown one says so', async () => {
    const port = await freePort()
    const file = blankFile(join(dir, 'a.raw'), 1 << 20)
    const server = new NbdServer({ file, exportName: 'a, "b"/c é', port, shared: 1 })
    server.start()
    try {
      expect(await onceUp(() => probe(port, 'a, "b"/c é'))).toEqual({ size: 1n << 20n, readOnly: false })
      // It serves one client at a time: had the first not left, or ended it, this would be no answer.
      expect(await probe(port, 'a, "b"/c é')).toMatchObject({ readOnly: false })
      expect(await refusalOf(probe(port, 'wrong'))).toMatch(
        /^DiskUnreachable: spec\.disks\[0\]\.nbd\.exportName: nbd:\/\/127\.0\.0\.1:\d+\/wrong can't be used: it has no such export.*; serve an export of that name .*; it is tried again$/,
      )
    } finally {
      await server.kill()
    }
    expect(await refusalOf(probe(port))).toMatch(/nothing listens there .*start the server/)
  })

  test('says that an export is read-only, over IPv6', async () => {
    const port = await freePort()
    const file = blankFile(join(dir, 'ro.raw'), 4096)
    const server = new NbdServer({ file, exportName: '', port, readOnly: true, bind: '::1' })
    server.start()
    try {
      const found = await onceUp(() => probe(port, '', '::1'))
      expect(found).toEqual({ size: 4096n, readOnly: true })
    } finally {
      await server.kill()
    }
  })

  test('that has all its clients takes the connection and says nothing', async () => {
    const port = await freePort()
    const server = new NbdServer({
      file: blankFile(join(dir, 'b.raw'), 4096),
      exportName: 'x',
      port,
      shared: 1,
    })
    server.start()
    try {
      await onceUp(() => probe(port))
      const guest = connect(port, '127.0.0.1')
      await once(guest, 'data')
      const probing = probeNbd({ host: '127.0.0.1', port, exportName: 'x' }, field, {
        ...{ signal: never, clock, deadlineMs: 500 },
      })
      expect(await refusalOf(probing)).toMatch(/says nothing; it may have all the clients .*--shared/)
      guest.destroy()
      await onceUp(() => probe(port))
    } finally {
      await server.kill()
    }
  })
})

describe('what is no NBD server', () => {
  /** A server that treats each connection so, while `work` runs. */
  async function served(treat: (socket: Socket) => void, work: (port: number) => Promise<void>) {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => {}))
      treat(socket)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      await work((server.address() as AddressInfo).port)
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  }

  test('a web server', () =>
    served(
      (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
      async (port) =>
        expect(await refusalOf(probe(port))).toMatch(/does not speak NBD; correct host and port/),
    ))

  test('one that hangs up', () =>
    served(
      (socket) => socket.end(),
      async (port) => expect(await refusalOf(probe(port))).toMatch(/it closed the connection/),
    ))

  test('one that sends for ever is cut off', () =>
    served(
      (socket) => {
        socket.write(Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]))
        const more = () => {
          while (socket.writable && socket.write(Buffer.alloc(65_536)));
        }
        socket.on('drain', more)
        more()
      },
      async (port) => expect(await refusalOf(probe(port))).toMatch(/its answer is not one of NBD/),
    ))

  test('one that is silent, until the work is given up', () =>
    served(
      () => {},
      async (port) => {
        const giveUp = new AbortController()
        const probing = probeNbd({ host: '127.0.0.1', port, exportName: '' }, field, {
          ...{ signal: giveUp.signal, clock },
        })
        giveUp.abort(new PlasmaError('Cancelled', 'no more'))
        expect(await refusalOf(probing)).toMatch(/^Cancelled: no more/)
      },
    ))

  test('a name that nobody knows', async () => {
    const text = await refusalOf(probe(10_809, 'x', 'no-such-host.invalid'))
    expect(text).toMatch(/spec\.disks\[0\]\.nbd\.host: nbd:\/\/no-such-host\.invalid:10809\/x can't be used/)
  })
})

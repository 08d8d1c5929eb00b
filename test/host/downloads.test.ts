import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { download } from '../../src/host/download.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { machine, prepared, privileged, workshop } from './disk-fixture.ts'

const body = Buffer.alloc(300_000, 7)
const sha256 = createHash('sha256').update(body).digest('hex')

let shop: ReturnType<typeof workshop>
let server: Server
let answer: RequestListener
let requests: number
let base: string

beforeEach(async () => {
  shop = workshop()
  requests = 0
  server = createServer((request, response) => {
    requests++
    answer(request, response)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(async () => {
  await shop.end()
  server.closeAllConnections()
  server.close()
})

const from = (path: string, sum = sha256, uid?: string) =>
  machine({ disks: [{ name: 'a', format: 'raw', image: { source: `${base}${path}`, sha256: sum } }] }, uid)
const cache = () => join(shop.dataDir, 'images', 'cache')

test('an image is downloaded once for all machines, through a redirect, with progress', async () => {
  answer = (request, response) => {
    if (request.url === '/start') response.writeHead(302, { location: '/image' }).end()
    else response.writeHead(200, { 'content-length': body.length }).end(body)
  }
  mkdirSync(cache(), { recursive: true })
  writeFileSync(join(cache(), 'old.part'), 'left by a killed run')
  const machines = [1, 2, 3].map((n) => from('/start', sha256, `11111111-2222-4333-8444-55555555555${n}`))
  const percents: (number | undefined)[] = []
  const stop = shop.disks.onChange(
    () => void shop.disks.observe(machines[0]!).then(([d]) => percents.push(d?.progressPercent)),
  )
  const states = await Promise.all(machines.map((vm) => prepared(shop.disks, vm)))
  stop()
  expect(states.map(([disk]) => disk?.message ?? disk?.state)).toEqual(['ready', 'ready', 'ready'])
  expect(percents.some((percent) => percent !== undefined)).toBe(true)
  expect(requests).toBe(2)
  expect(readdirSync(cache())).toEqual([sha256])
  expect(readFileSync(states[0]![0]!.path!).subarray(0, body.length).equals(body)).toBe(true)
})

test.each<[string, RequestListener, RegExp]>([
  ['status', (_, response) => response.writeHead(404).end('no'), /answered 404/],
  ['loop', (_, response) => response.writeHead(302, { location: '/again' }).end(), /more than 5 redirects/],
  ['scheme', (_, response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end(), /not http/],
  ['silence', (_, response) => response.writeHead(200).write('x'), /sent nothing for 0\.3 s/],
  ['no answer', () => {}, /sent nothing for 0\.3 s/],
  [
    'cut',
    (_, response) => {
      response.writeHead(200, { 'content-length': 1000 })
      response.write('x', () => response.destroy())
    },
    /download of .* failed/,
  ],
  ['huge', (_, response) => response.writeHead(200, { 'content-length': 2 ** 50 }).write('x'), /1Pi or more/],
  [
    'other bytes',
    (_, response) => response.end('other'),
    /spec\.disks\[0\]\.image\.sha256 says [0-9a-f]{64}, the image has [0-9a-f]{64}/,
  ],
])('a bad server (%s) fails the disk, says why and leaves nothing', async (_, bad, message) => {
  answer = bad
  if (message.source.includes('sent nothing')) {
    await shop.end()
    shop = workshop({ stallMs: 300 })
  }
  const [disk] = await prepared(shop.disks, from('/image'))
  expect(disk?.state).toBe('failed')
  expect(disk?.message).toMatch(message)
  expect(readdirSync(cache())).toEqual([])
  expect(readdirSync(shop.own)).toEqual([])
})

test('a server that ends each answer at once takes nothing but its own connection along', async () => {
  const whole = Buffer.alloc(320 * 1024, 7)
  const head = `HTTP/1.1 200 OK\r\ncontent-length: ${whole.length}\r\nconnection: close\r\n\r\n`
  const curt = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.end(Buffer.concat([Buffer.from(head), whole])))
  }).listen(0, '127.0.0.1')
  await once(curt, 'listening')
  const url = `http://127.0.0.1:${(curt.address() as AddressInfo).port}/image`
  // Its reader is slower than the server: the end of the connection comes while most is not read yet.
  const to = join(shop.dir, 'pipe')
  execFileSync('mkfifo', [to])
  const fifo = openSync(to, 'r+')
  const reader = spawn('sh', ['-c', 'sleep 0.5; exec cat >/dev/null'], { stdio: [fifo, 'ignore', 'inherit'] })
  const { signal } = new AbortController()
  const job = { url, to, limit: 1 << 20, clock: systemClock, signal, stallMs: 10_000, onPercent: () => {} }
  expect(await download(job)).toBe(createHash('sha256').update(whole).digest('hex'))
  reader.kill('SIGKILL')
  closeSync(fifo)
  curt.close()
})

test('removal cancels a download at once, also of a machine that waits for its turn', async () => {
  const slow = workshop()
  const asked = new Promise<void>((resolve) => {
    answer = () => resolve()
  })
  const machines = [1, 2, 3].map((n) => from('/x', sha256, `11111111-2222-4333-8444-55555555555${n}`))
  for (const vm of machines) slow.disks.prepare(vm)
  await asked
  await slow.disks.remove(machines[2]!)
  // One of these downloads and the other waits for it; whichever goes, the other goes on.
  await slow.disks.remove(machines[1]!)
  expect((await slow.disks.observe(machines[1]!))[0]?.state).toBe('absent')
  expect((await slow.disks.observe(machines[0]!))[0]?.state).toBe('preparing')
  await slow.disks.remove(machines[0]!)
  await slow.end()
})

test.runIf(privileged)(
  'a file system that fills up meanwhile is said and nothing is left behind',
  async () => {
    const small = join(shop.dir, 'small')
    mkdirSync(small)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small])
    const full = workshop({ dataDir: join(small, 'data') })
    answer = (_, response) => {
      // Free when it was asked for; somebody else then takes the rest.
      writeFileSync(join(small, 'taken'), Buffer.alloc(900_000))
      response.end(body)
    }
    try {
      const [disk] = await prepared(full.disks, from('/image'))
      expect(disk?.state).toBe('failed')
      expect(disk?.message).toContain('no space left on the file system of')
      expect(readdirSync(join(small, 'data', 'images', 'cache'))).toEqual([])
    } finally {
      await full.end()
      execFileSync('umount', ['-l', small])
    }
  },
)

test.each([
  [
    'is cut short',
    'it ended after',
    (response: ServerResponse) => {
      response.writeHead(200, { 'content-length': body.length }).write(body.subarray(0, 1_000))
      setImmediate(() => response.destroy())
    },
  ],
  [
    'is only a part',
    'the server answered 206',
    (response: ServerResponse) => void response.writeHead(206).end(body),
  ],
  ['is empty', 'the server answered 204', (response: ServerResponse) => void response.writeHead(204).end()],
])('an answer that %s is told as such', async (_what, words, send) => {
  answer = (_, response) => send(response)
  const [disk] = await prepared(shop.disks, from('/image'))
  expect(disk).toMatchObject({ state: 'failed', message: expect.stringContaining(words) })
  expect(readdirSync(cache())).toEqual([])
})

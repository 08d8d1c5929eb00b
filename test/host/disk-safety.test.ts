import { execFileSync, fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { makeWhole } from '../../src/host/durable-files.ts'
import type { Pool } from '../../src/host/pools.ts'
import { machine, prepared, privileged, uid, until, workshop } from './disk-fixture.ts'

const MiB = 1 << 20

let shop: ReturnType<typeof workshop>
let pool: string
let pools: Pool[]
beforeEach(() => {
  pools = []
  shop = workshop({ pools: () => pools })
  pool = join(shop.dir, 'pool')
  pools = [{ name: 'fast', path: pool }]
})
afterEach(() => shop.end())

describe('a disk that was made once', () => {
  const vm = (more: Record<string, unknown> = {}) =>
    machine({ disks: [{ name: 'root', size: '4Mi', pool: 'fast', ...more }] })
  const path = () => join(pool, uid, 'root.qcow2')
  const made = () => readFileSync(join(shop.dataDir, 'made', `${uid}.json`), 'utf8')

  test('is not made anew where its pool is not mounted, and is there again with it', async () => {
    await prepared(shop.disks, vm())
    const away = `${pool}-away`
    renameSync(pool, away)
    mkdirSync(pool)
    const [disk] = await prepared(shop.disks, vm())
    expect(disk?.state).toBe('failed')
    expect(disk?.message).toContain(`spec.disks[0]: it was made as ${path()} and is not there`)
    expect(existsSync(path())).toBe(false)
    rmSync(pool, { recursive: true })
    renameSync(away, pool)
    expect((await shop.disks.observe(vm()))[0]?.state).toBe('ready')
  })

  test('is not replaced by an empty one in another pool or format', async () => {
    await prepared(shop.disks, vm())
    for (const other of [{ pool: 'default' }, { format: 'raw' }]) {
      const [disk] = await prepared(shop.disks, vm(other))
      expect(disk?.message).toContain(`it was made as ${path()}: pool and format of a disk stay as they were`)
    }
    expect(existsSync(join(shop.own, 'root.qcow2'))).toBe(false)
  })

  test('is known to another life of the server, and one that only lies there becomes known', async () => {
    await prepared(shop.disks, vm())
    rmSync(join(shop.dataDir, 'made'), { recursive: true })
    const next = workshop({ ...shop.options })
    onTestFinished(() => next.end())
    next.disks.prepare(vm())
    await expect.poll(() => existsSync(join(shop.dataDir, 'made', `${uid}.json`))).toBe(true)
    await until(next.disks, vm(), ([disk]) => disk?.state === 'ready')
    rmSync(path())
    expect((await next.disks.observe(vm()))[0]?.state).toBe('failed')
  })

  test('is not made anew where the record of it is damaged', async () => {
    await prepared(shop.disks, vm())
    writeFileSync(join(shop.dataDir, 'made', `${uid}.json`), '{"version":1,')
    rmSync(path())
    expect((await prepared(shop.disks, vm()))[0]?.message).toContain(`${uid}.json can't be read`)
    expect(existsSync(path())).toBe(false)
  })

  test('goes with its machine, also where its pool is not declared any more', async () => {
    await prepared(shop.disks, vm())
    expect(made()).toContain(path())
    pools = []
    await shop.disks.remove(vm())
    expect(readdirSync(pool)).toEqual([])
    expect(readdirSync(join(shop.dataDir, 'made'))).toEqual([])
    await shop.disks.remove(vm())
  })

  test('whose record names a folder that is not the machine’s takes nothing with it', async () => {
    mkdirSync(join(shop.dataDir, 'made'), { recursive: true })
    const precious = join(shop.dir, 'precious')
    mkdirSync(precious)
    const record = { version: 1, disks: { root: join(precious, 'root.qcow2') } }
    writeFileSync(join(shop.dataDir, 'made', `${uid}.json`), JSON.stringify(record))
    await shop.disks.remove(vm())
    expect(existsSync(precious)).toBe(true)
  })
})

describe('removal', () => {
  test('removes a link, never what it leads to', async () => {
    const precious = join(shop.dir, 'precious')
    mkdirSync(precious)
    writeFileSync(join(precious, 'file'), 'x')
    mkdirSync(pool)
    symlinkSync(precious, join(pool, uid))
    mkdirSync(shop.own, { recursive: true })
    symlinkSync(precious, join(shop.own, 'inside'))
    await shop.disks.remove(machine({}))
    expect(readdirSync(precious)).toEqual(['file'])
    expect(existsSync(join(pool, uid))).toBe(false)
    expect(existsSync(shop.own)).toBe(false)
  })

  test('leaves the image that other machines stand on', async () => {
    const { disks, imageDir } = shop
    const base = join(imageDir, 'base.raw')
    writeFileSync(base, Buffer.alloc(MiB))
    const other = '99999999-2222-4333-8444-555555555555'
    const spec = { disks: [{ name: 'a', image: { source: 'base.raw' } }] }
    await Promise.all([prepared(disks, machine(spec)), prepared(disks, machine(spec, other))])
    await disks.remove(machine(spec))
    expect(existsSync(base)).toBe(true)
    expect((await disks.observe(machine(spec, other)))[0]?.state).toBe('ready')
  })
})

test.each([2, 8])('%i machines at once get no more of a pool than its capacity', async (count) => {
  pools = [{ name: 'fast', path: pool, capacity: 10 * MiB }]
  const disk = { name: 'a', pool: 'fast', size: '6Mi' }
  const machines = Array.from({ length: count }, (_, n) =>
    machine({ disks: [disk] }, `11111111-2222-4333-8444-55555555550${n}`),
  )
  const states = await Promise.all(machines.map((vm) => prepared(shop.disks, vm)))
  const [ready, failed] = ['ready', 'failed'].map((state) => states.filter(([d]) => d?.state === state))
  expect(ready).toHaveLength(1)
  expect(failed).toHaveLength(count - 1)
  // What a failed or a removed disk was promised is free again.
  await shop.disks.remove(machines[states.indexOf(ready![0]!)]!)
  const again = machines[states.indexOf(failed![0]!)]!
  expect((await prepared(shop.disks, again))[0]?.state).toBe('ready')
})

test('slow servers hold up neither blank disks nor each other’s progress', async () => {
  const body = Buffer.alloc(100_000)
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': body.length })
    response.write(body.subarray(0, 50_000))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const sha256 = createHash('sha256').update(body).digest('hex')
  const image = { source: `http://127.0.0.1:${port}/image`, sha256 }
  const slow = [1, 2, 3, 4, 5].map((n) =>
    machine({ disks: [{ name: 'a', image }] }, `11111111-2222-4333-8444-55555555550${n}`),
  )
  for (const vm of slow) shop.disks.prepare(vm)
  // Whoever waits for another's download sees how far that is.
  for (const vm of slow) await until(shop.disks, vm, ([disk]) => disk?.progressPercent === 50)
  const [blank] = await prepared(shop.disks, machine({ disks: [{ name: 'a', size: '1Mi' }] }))
  expect(blank?.state).toBe('ready')
})

test('a password in an image’s URL is refused and not repeated', async () => {
  const image = { source: 'http://user:hunter2@127.0.0.1:1/x', sha256: '0'.repeat(64) }
  const [disk] = await prepared(shop.disks, machine({ disks: [{ name: 'a', image }] }))
  expect(disk?.message).toMatch(/spec\.disks\[0\]\.image\.source: .*has a user name or password in its URL/)
  expect(disk?.message).not.toContain('hunter2')
})

describe('a server that is killed', () => {
  const child = join(import.meta.dirname, 'prepare-child.ts')
  const running = (what: string) =>
    execFileSync('ps', ['-e', '-o', 'args='], { encoding: 'utf8' })
      .split('\n')
      .some((line) => line.includes(what) && !line.includes('prepare-child'))

  test('takes what it runs with it', async () => {
    const server = fork(child, ['sleep'])
    await once(server, 'message')
    await expect.poll(() => running('sleep 1000.25')).toBe(true)
    server.kill('SIGKILL')
    await expect.poll(() => running('sleep 1000.25')).toBe(false)
  })

  test('in the middle of a copy leaves nothing that the next one could take for a disk', async () => {
    const image = join(shop.dir, 'big.raw')
    execFileSync('sh', ['-c', 'yes "some text that is no zero" | head -c 400000000 >"$0"', image])
    const server = fork(child, [image, shop.dataDir])
    await new Promise<void>((resolve) =>
      server.on('message', (message: { progressPercent?: number }) => {
        if ((message.progressPercent ?? 0) > 0) resolve()
      }),
    )
    server.kill('SIGKILL')
    await once(server, 'exit')
    await expect.poll(() => running(image)).toBe(false)
    const left = readdirSync(shop.own)
    expect(left).toHaveLength(1)
    expect(left[0]).toMatch(/^a\.raw\..*\.part$/)
    const vm = machine({ disks: [{ name: 'a', format: 'raw', image: { source: image } }] })
    expect((await shop.disks.observe(vm))[0]?.state).toBe('absent')
    expect((await prepared(shop.disks, vm))[0]?.state).toBe('ready')
    expect(readdirSync(shop.own)).toEqual(['a.raw'])
    execFileSync('cmp', [image, join(shop.own, 'a.raw')])
  })
})

test('two that make one file never write to one part', async () => {
  const path = join(shop.dir, 'file')
  const parts = new Set<string>()
  const make = (text: string) =>
    makeWhole(path, async (part) => {
      parts.add(part)
      writeFileSync(part, text, { flag: 'wx' })
    })
  await Promise.all([make('one'), make('two')])
  expect(parts.size).toBe(2)
  expect(['one', 'two']).toContain(readFileSync(path, 'utf8'))
  expect(readdirSync(shop.dir).filter((name) => name.endsWith('.part'))).toEqual([])
})

describe('a pool that can’t be used', () => {
  const vm = () => machine({ disks: [{ name: 'a', size: '64Ki', pool: 'fast', format: 'raw' }] })

  test('because its path is a file is named', async () => {
    writeFileSync(pool, '')
    expect((await prepared(shop.disks, vm()))[0]?.message).toMatch(
      /spec\.disks\[0\]\.pool: pool fast .*part of the path is no folder/,
    )
  })

  test.runIf(privileged)('because it is read-only or full is named, and nothing is left', async () => {
    mkdirSync(pool)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,ro', 'tmpfs', pool])
    try {
      expect((await prepared(shop.disks, vm()))[0]?.message).toMatch(/pool fast .*read-only/)
      execFileSync('mount', ['-o', 'remount,rw', pool])
      writeFileSync(join(pool, 'taken'), Buffer.alloc(1_040_000))
      const [full] = await prepared(shop.disks, vm())
      expect(full?.state).toBe('failed')
      expect(full?.message).toMatch(/more than the .* free in pool fast/)
      expect(readdirSync(pool).filter((name) => name !== uid)).toEqual(['taken'])
      rmSync(join(pool, 'taken'))
      expect((await prepared(shop.disks, vm()))[0]?.state).toBe('ready')
    } finally {
      execFileSync('umount', ['-l', pool])
    }
  })
})

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { machine, prepared, uid, until, workshop } from './disk-fixture.ts'

let shop: ReturnType<typeof workshop>
beforeEach(() => {
  shop = workshop()
})
afterEach(() => shop.end())

interface Info {
  'virtual-size': number
  format: string
  'full-backing-filename'?: string
  'backing-filename-format'?: string
}
const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { encoding: 'utf8' })
const info = (path: string) => JSON.parse(qemuImg('info', '--output=json', path)) as Info
const MiB = 1 << 20

test('makes blank disks, a seed and UEFI variables, then removes exactly them', async () => {
  const { disks, own } = shop
  const given = join(shop.dir, 'given.raw')
  writeFileSync(given, 'precious')
  const vm = machine({
    firmware: 'uefi',
    cloudInit: {},
    disks: [
      { name: 'root', size: '64Mi' },
      { name: 'data', size: '8M', format: 'raw' },
      { name: 'old', path: given, format: 'raw' },
    ],
  })
  expect((await disks.observe(vm)).map((d) => d.state)).toEqual([
    'absent',
    'absent',
    'ready',
    'absent',
    'absent',
  ])
  const seen = await prepared(disks, vm)
  expect(seen.map((d) => [d.name, d.state, d.path])).toEqual([
    ['root', 'ready', join(own, 'root.qcow2')],
    ['data', 'ready', join(own, 'data.raw')],
    ['old', 'ready', given],
    ['cloud-init', 'ready', join(own, 'cloud-init.iso')],
    ['efi-vars', 'ready', join(own, 'efi-vars.fd')],
  ])
  expect(info(join(own, 'root.qcow2'))).toMatchObject({ 'virtual-size': 64 * MiB, format: 'qcow2' })
  expect(statSync(join(own, 'data.raw')).size).toBe(8_000_000)
  await disks.remove(vm)
  await disks.remove(vm)
  expect(existsSync(own)).toBe(false)
  expect(readFileSync(given, 'utf8')).toBe('precious')
})

test('an image becomes an overlay of known format or a raw copy, grown to the size', async () => {
  const { disks, own, imageDir } = shop
  qemuImg('create', '-q', '-f', 'qcow2', join(imageDir, 'base.img'), '16M')
  const image = { source: 'base.img' }
  const vm = machine({
    disks: [
      { name: 'thin', image, size: '32Mi' },
      { name: 'same', image },
      { name: 'full', image, size: '24Mi', format: 'raw' },
    ],
  })
  await prepared(disks, vm)
  expect(info(join(own, 'thin.qcow2'))).toMatchObject({
    'virtual-size': 32 * MiB,
    'full-backing-filename': join(imageDir, 'base.img'),
    'backing-filename-format': 'qcow2',
  })
  expect(info(join(own, 'same.qcow2'))['virtual-size']).toBe(16 * MiB)
  expect(statSync(join(own, 'full.raw')).size).toBe(24 * MiB)
})

test('a bigger size grows a disk and a smaller one is refused', async () => {
  const { disks, own } = shop
  const of = (size: string) => machine({ disks: [{ name: 'root', size }] })
  await prepared(disks, of('16Mi'))
  expect((await disks.observe(of('32Mi')))[0]).toMatchObject({
    ...{ state: 'absent', size: '16Mi' },
    message: expect.stringContaining('16Mi to 32Mi'),
  })
  expect((await prepared(disks, of('32Mi')))[0]).toMatchObject({ state: 'ready', size: '32Mi' })
  expect(info(join(own, 'root.qcow2'))['virtual-size']).toBe(32 * MiB)
  const [small] = await prepared(disks, of('16Mi'))
  expect(small).toMatchObject({ state: 'failed', size: '32Mi' })
  expect(small?.message).toContain('spec.disks[0].size: the disk would shrink from 32Mi to 16Mi')
})

test.each([
  [
    { disks: [{ name: 'a', image: { source: 'none.img' } }] },
    /spec\.disks\[0\]\.image\.source: .*does not exist/,
  ],
  [{ disks: [{ name: 'a', image: { source: '../../etc/passwd' } }] }, /leads out of the image folder/],
  [
    { disks: [{ name: 'a', size: '1Pi' }] },
    /spec\.disks\[0\]\.size: 1Pi is more than the .* free in pool default/,
  ],
  [
    { disks: [{ name: 'a', size: '1Mi', pool: 'fast' }] },
    /spec\.disks\[0\]\.pool: there is no StoragePool fast/,
  ],
  [{ disks: [{ name: 'a', path: '/nowhere/x' }] }, /spec\.disks\[0\]\.path: \/nowhere\/x does not exist/],
  [{ disks: [{ name: 'kernel', size: '1Mi' }] }, /spec\.disks\[0\]\.name: kernel is reserved/],
  [{ kernel: { image: 'vmlinuz' } }, /spec\.kernel\.image: .*vmlinuz does not exist/],
  [{ kernel: { image: '../vmlinuz' } }, /spec\.kernel\.image: .*leads out/],
])('says what is wrong: %j', async (spec, message) => {
  const [state] = await prepared(shop.disks, machine(spec))
  expect(state?.state).toBe('failed')
  expect(state?.message).toMatch(message)
  if (existsSync(shop.own)) expect(readdirSync(shop.own)).toEqual([])
})

test('tells of each name once, as status must: a disk by the name of something else stands for both', async () => {
  const kernel = { image: 'vmlinuz', initrd: 'initrd' }
  const disks = ['kernel', 'a', 'initrd'].map((name) => ({ name, size: '1Mi' }))
  const states = await prepared(shop.disks, machine({ disks, kernel }))
  expect(states.map(({ name }) => name)).toEqual(['kernel', 'a', 'initrd'])
  expect(states[0]?.message).toMatch(/reserved/)
})

test('an image with a backing file, a wrong sum or too big for the size is refused', async () => {
  const { disks, imageDir } = shop
  qemuImg('create', '-q', '-f', 'raw', join(imageDir, 'base.raw'), '2M')
  qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-F',
    'raw',
    '-b',
    join(imageDir, 'base.raw'),
    join(imageDir, 'over.img'),
  )
  const vm = machine({
    disks: [
      { name: 'a', image: { source: 'over.img' } },
      { name: 'b', image: { source: 'base.raw', sha256: '0'.repeat(64) } },
      { name: 'c', image: { source: 'base.raw' }, size: '1Mi' },
    ],
  })
  const [over, sum, size] = (await prepared(disks, vm)).map((d) => d.message)
  expect(over).toContain('may refer to other files')
  expect(sum).toMatch(/spec\.disks\[0*1\]\.image\.sha256 says 0{64}, the image has [0-9a-f]{64}/)
  expect(size).toContain("spec.disks[2].size: 1Mi is less than the image's 2Mi")
})

test('a pool with a capacity takes no more than that', async () => {
  const pool = { name: 'small', path: join(shop.dir, 'pool'), capacity: 10 * MiB }
  const other = workshop({ pools: () => [pool] })
  const disk = (name: string) => ({ name, pool: 'small', size: '6Mi' })
  const [first, second] = await prepared(other.disks, machine({ disks: [disk('a'), disk('b')] }))
  expect(first).toMatchObject({ state: 'ready', path: join(pool.path, uid, 'a.qcow2') })
  expect(second?.message).toContain("6Mi is more than the 4Mi left of pool small's capacity 10Mi")
  await other.disks.remove(machine({}))
  expect(readdirSync(pool.path)).toEqual([])
  await other.end()
})

test('a changed seed is rebuilt; leftovers of a killed run are removed', async () => {
  const { disks, own } = shop
  mkdirSync(own, { recursive: true })
  writeFileSync(join(own, 'root.qcow2.part'), 'half')
  await prepared(disks, machine({ cloudInit: { userData: 'one' } }))
  expect(readdirSync(own)).toEqual(['cloud-init.iso'])
  const changed = machine({ cloudInit: { userData: 'two' } })
  expect((await disks.observe(changed))[0]?.state).toBe('absent')
  expect((await prepared(disks, changed))[0]?.state).toBe('ready')
})

test('a failure is kept until the next preparation', async () => {
  const { disks, imageDir } = shop
  const vm = machine({ disks: [{ name: 'a', image: { source: 'late.img' } }] })
  await prepared(disks, vm)
  qemuImg('create', '-q', '-f', 'qcow2', join(imageDir, 'late.img'), '1M')
  expect((await disks.observe(vm))[0]?.state).toBe('failed')
  disks.prepare(vm)
  expect((await disks.observe(vm))[0]?.state).toBe('preparing')
  await until(disks, vm, ([disk]) => disk?.state === 'ready')
})

test('a uid that is no UUID never becomes a path', async () => {
  await expect(shop.disks.remove(machine({}, '../..'))).rejects.toThrow('not a lower-case UUID')
  expect(existsSync(shop.dir)).toBe(true)
})

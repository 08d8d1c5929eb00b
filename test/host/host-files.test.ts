import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { deviceNumber, mountedDevices } from '../../src/host/in-use.ts'
import { parseQcow2 } from '../../src/host/qcow2.ts'
import { machine, prepared, privileged, workshop } from './disk-fixture.ts'

let shop: ReturnType<typeof workshop>
beforeEach(() => {
  shop = workshop()
})
afterEach(() => shop.end())

const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { encoding: 'utf8' })
const seen = async (spec: Record<string, unknown>) => (await shop.disks.observe(machine(spec)))[0]
const given = (path: string, more: Record<string, unknown> = {}) =>
  seen({ disks: [{ name: 'a', path, format: 'raw', ...more }] })
const image = async (source: string) =>
  (await prepared(shop.disks, machine({ disks: [{ name: 'a', image: { source } }] })))[0]

describe('no machine is given', () => {
  test.each(['/etc/shadow', '/proc/kcore', '/sys/kernel/vmcoreinfo', '/dev/null', '/dev/kmsg'])(
    '%s, as a disk, an image, a kernel, or behind a link',
    async (path) => {
      if (!existsSync(path)) return expect((await given(path))?.message).toContain('does not exist')
      const link = join(shop.dir, 'link')
      symlinkSync(path, link)
      const no =
        /^spec\.(disks\[0\]|kernel)\.(path|image|image\.source): .*(belong to the system|neither a file)/
      for (const name of [path, link, `/usr/..${path}`]) {
        for (const readOnly of [true, false])
          expect(await given(name, { readOnly })).toMatchObject({
            state: 'failed',
            message: expect.stringMatching(no),
          })
        expect(await image(name)).toMatchObject({ state: 'failed', message: expect.stringMatching(no) })
        expect(await seen({ kernel: { image: name } })).toMatchObject({ message: expect.stringMatching(no) })
      }
    },
  )

  test('what the server keeps for itself, in its data folder', async () => {
    const { dataDir } = shop
    for (const folder of ['store', 'images', 'images/cache', 'disks'])
      mkdirSync(join(dataDir, folder), { recursive: true })
    for (const file of ['credentials', 'store/data.mdb', 'images/own', 'images/cache/sum', 'disks/own'])
      writeFileSync(join(dataDir, file), '')
    for (const file of ['credentials', 'store/data.mdb'])
      for (const readOnly of [true, false])
        expect((await given(join(dataDir, file), { readOnly }))?.message).toContain(
          'belongs to PlasmaVMC itself',
        )
    expect((await given(join(dataDir, 'images/cache/sum')))?.message).toContain(
      'disks of machines stand on it',
    )
    expect((await given(join(dataDir, 'images/cache/sum'), { readOnly: true }))?.state).toBe('ready')
    for (const file of ['images/own', 'disks/own'])
      expect((await given(join(dataDir, file)))?.state).toBe('ready')
  })

  test('a disk of another machine, in any pool, or through a link', async () => {
    const other = '99999999-2222-4333-8444-555555555555'
    const pool = join(shop.dir, 'pool')
    const pooled = workshop({ pools: () => [{ name: 'fast', path: pool }] })
    onTestFinished(() => pooled.end())
    const places = [join(pool, other), join(pooled.dataDir, 'disks', other)]
    for (const place of places) {
      mkdirSync(place, { recursive: true })
      const path = join(place, 'root.raw')
      writeFileSync(path, 'theirs')
      const link = join(pooled.dir, 'link')
      rmSync(link, { force: true })
      symlinkSync(path, link)
      for (const name of [path, link]) {
        const vm = machine({ disks: [{ name: 'a', path: name, format: 'raw', readOnly: true }] })
        expect((await pooled.disks.observe(vm))[0]?.message).toContain(`it belongs to the machine ${other}`)
      }
    }
  })

  test('a folder, a socket or a pipe', async () => {
    const pipe = join(shop.dir, 'pipe')
    execFileSync('mkfifo', [pipe])
    for (const path of [shop.dir, pipe]) expect((await given(path))?.message).toContain('neither a file nor')
  })

  test.runIf(privileged)(
    'a block device that is mounted, or a file that a loop device stands on',
    async () => {
      const file = join(shop.dir, 'fs.img')
      const point = join(shop.dir, 'mnt')
      writeFileSync(file, Buffer.alloc(4 << 20))
      mkdirSync(point)
      execFileSync('mkfs.ext4', ['-q', file])
      const device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim()
      try {
        expect((await given(file))?.message).toContain(`the loop device ${device} stands on it`)
        expect((await given(device))?.state).toBe('ready')
        execFileSync('mount', [device, point])
        expect((await given(device))?.message).toContain(`it is mounted on ${point}`)
        expect((await given(device, { readOnly: true }))?.state).toBe('ready')
        execFileSync('umount', [point])
      } finally {
        execFileSync('losetup', ['--detach', device])
      }
      await expect.poll(async () => (await given(file))?.state).toBe('ready')
    },
  )

  test('the disk this host itself runs from', async () => {
    const [line = ''] = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((l) => / \/ /.test(l) && / - .* \/dev\//.test(l))
    const device = / - \S+ (\/dev\/\S+)/.exec(line)?.[1]
    if (device === undefined || !existsSync(device)) return
    expect((await given(device))?.message).toMatch(/mounted|part of|cannot be read/)
  })
})

test('device numbers and mounts are read as the kernel writes them', () => {
  expect(deviceNumber(statSync('/dev/null').rdev)).toBe('1:3')
  expect(deviceNumber(0xfe_00)).toBe('254:0')
  const mounts = mountedDevices(
    '26 1 254:1 / /a rw shared:1 - ext4 /dev/vda1 rw\n27 1 0:40 / /b rw - btrfs /dev/sdb rw\n',
  )
  expect([mounts.get('254:1'), mounts.get('/dev/vda1'), mounts.get('/dev/sdb')]).toEqual(['/a', '/a', '/b'])
})

test('a relative source may not leave the image folder by a link either', async () => {
  const outside = join(shop.dir, 'outside.raw')
  writeFileSync(outside, Buffer.alloc(1 << 20))
  symlinkSync(outside, join(shop.imageDir, 'link.raw'))
  writeFileSync(join(shop.imageDir, 'own.raw'), Buffer.alloc(1 << 20))
  symlinkSync('own.raw', join(shop.imageDir, 'latest.raw'))
  expect((await image('link.raw'))?.message).toContain(
    'spec.disks[0].image.source: link.raw leads out of the image folder',
  )
  expect((await seen({ kernel: { image: 'link.raw' } }))?.message).toContain('leads out of the image folder')
  expect((await image('latest.raw'))?.state).toBe('ready')
})

describe('an existing qcow2 disk', () => {
  const path = () => join(shop.dir, 'disk.qcow2')
  const qcow2 = () => given(path(), { format: 'qcow2' })
  const over = (base: string, format: string) =>
    qemuImg('create', '-q', '-u', '-f', 'qcow2', '-F', format, '-b', base, path(), '1M')

  test('may stand on plain files with a format', async () => {
    qemuImg('create', '-q', '-f', 'raw', join(shop.dir, 'base.raw'), '1M')
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.raw', join(shop.dir, 'middle.qcow2'))
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'middle.qcow2', path())
    expect(await qcow2()).toMatchObject({ state: 'ready' })
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', '-F', 'raw', '-b', 'base.raw', path())
    expect(await qcow2()).toMatchObject({ state: 'ready' })
  })

  test.each([
    ['/etc/shadow', 'raw', /files in \/etc belong to the system/],
    ['json:{"driver":"file","filename":"/etc/shadow"}', 'raw', /which is no file/],
    ['nbd://127.0.0.1/x', 'raw', /which is no file/],
    ['ssh://host/file', 'qcow2', /which is no file/],
    ['/nowhere/base', 'raw', /\/nowhere\/base does not exist/],
    ['base.vmdk', 'vmdk', /does not say that its backing file base.vmdk is raw or qcow2/],
  ])('may not stand on %s', async (base, format, message) => {
    over(base, format)
    expect(await qcow2()).toMatchObject({ state: 'failed', message: expect.stringMatching(message) })
  })

  test('may not lead to such a file over others, nor in circles', async () => {
    over('/etc/shadow', 'raw')
    execFileSync('mv', [path(), join(shop.dir, 'middle.qcow2')])
    over('middle.qcow2', 'qcow2')
    expect((await qcow2())?.message).toContain('files in /etc belong')
    over('disk.qcow2', 'qcow2')
    expect((await qcow2())?.message).toContain('more than 16 backing files')
  })

  test('may not keep its data elsewhere, must name its format, and must be one', async () => {
    const data = join(shop.dir, 'data.raw')
    qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, path(), '1M')
    expect((await qcow2())?.message).toContain('keeps its data in another file')
    over('base.raw', 'raw')
    // The extension that names the format, taken out: an old qemu-img wrote none, and QEMU would guess.
    const bytes = readFileSync(path())
    bytes.writeUInt32BE(0x11111111, bytes.indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca])))
    writeFileSync(path(), bytes)
    expect((await qcow2())?.message).toContain('does not say that its backing file base.raw is')
    writeFileSync(path(), 'something else')
    expect((await qcow2())?.message).toContain('it is not a qcow2 image')
  })

  test('whose header is damaged is told, whatever the damage', () => {
    over('base.raw', 'raw')
    const whole = readFileSync(path()).subarray(0, 4096)
    for (let at = 0; at < 600; at++) {
      const bytes = Buffer.from(whole)
      bytes[at] = 0xff
      try {
        parseQcow2(bytes)
        parseQcow2(bytes.subarray(0, at))
      } catch (error) {
        expect(['NotQcow2', 'ImageDamaged']).toContain((error as { code?: string }).code)
      }
    }
  })
})

test('a hostile image is refused before anything stands on it', async () => {
  const { imageDir, own } = shop
  const path = (name: string) => join(imageDir, name)
  qemuImg('create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/shadow', path('shadow'), '1M')
  const json = 'json:{"driver":"file","filename":"/etc/shadow"}'
  qemuImg('create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', json, path('json'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${path('data')}`, path('external'), '1M')
  writeFileSync(
    path('vmdk'),
    '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/shadow" 0\n',
  )
  qemuImg('create', '-q', '-f', 'qcow2', path('huge'), '30T')
  qemuImg('create', '-q', '-f', 'qcow2', path('damaged'), '1M')
  const bytes = readFileSync(path('damaged'))
  bytes.fill(0xff, 36, 48)
  writeFileSync(path('damaged'), bytes)
  for (const name of ['shadow', 'json', 'external', 'vmdk'])
    expect((await image(name))?.message).toMatch(/may refer to other files|CommandFailed|failed/)
  expect((await image('huge'))?.message).toMatch(/spec\.disks\[0\]\.size: .* is more than the .* free/)
  expect((await image('damaged'))?.state).toBe('failed')
  if (existsSync(own)) expect(execFileSync('ls', [own], { encoding: 'utf8' })).toBe('')
})

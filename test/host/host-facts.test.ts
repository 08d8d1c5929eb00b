import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { detectAccelerator, hasVirtualization } from '../../src/host/accelerator.ts'
import { firmwareCodeFor } from '../../src/host/firmware.ts'
import { runsGuests } from '../../src/host/guest-probe.ts'
import { findProgram, hostFacts, isAtLeast, parseQemuVersion, QemuBinary } from '../../src/host/host-facts.ts'

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'pv-'))
  onTestFinished(() => rmSync(path, { recursive: true }))
  return path
}

describe('accelerator', () => {
  function probes(flags: string) {
    const dir = folder()
    writeFileSync(join(dir, 'cpuinfo'), `processor\t: 0\nflags\t\t: fpu ${flags}\nbugs\t\t: svm_bug\n`)
    writeFileSync(join(dir, 'kvm'), '')
    return { kvmDevice: join(dir, 'kvm'), cpuinfo: join(dir, 'cpuinfo') }
  }

  /** A QEMU that ends as a guest's proof ends it, where the command line asks for KVM. */
  function standIn(body = 'case "$*" in *accel=kvm*) exit 85;; esac; exit 1'): string {
    const dir = folder()
    const qemuBinary = join(dir, 'qemu')
    writeFileSync(qemuBinary, `#!/bin/sh\necho x >>${dir}/asked\n${body}\n`, { mode: 0o755 })
    return qemuBinary
  }
  const asked = (qemu: string) => readFileSync(join(qemu, '../asked'), 'utf8').length / 2

  test.each(['vmx', 'sse svm lm'])('KVM where a guest ran and the processor has %s', async (flags) => {
    expect(await detectAccelerator({ ...probes(flags), qemuBinary: standIn() })).toBe('kvm')
  })

  test('a device is no proof, nor is one that a guest runs on without virtualization', async () => {
    const wrong = { ...probes('sse hypervisor vmx_like'), qemuBinary: standIn() }
    expect(await detectAccelerator(wrong)).toBe('tcg')
  })

  test('a processor with virtualization is no proof either', async () => {
    const { cpuinfo, kvmDevice } = probes('vmx')
    const qemuBinary = standIn()
    expect(await detectAccelerator({ cpuinfo, qemuBinary, kvmDevice: '/nowhere/kvm' })).toBe('tcg')
    expect(await detectAccelerator({ cpuinfo: '/nowhere', qemuBinary, kvmDevice })).toBe('tcg')
    expect(await detectAccelerator({ cpuinfo, kvmDevice, qemuBinary: 'no-such-qemu' })).toBe('tcg')
  })

  test.each(['exit 0', 'exit 1', 'kill -SEGV $$', 'exec sleep 60'])(
    'a guest that does not come to its end is none: %s',
    async (body) => {
      const qemuBinary = standIn(body)
      expect(await detectAccelerator({ ...probes('vmx'), qemuBinary, timeoutMs: 1_000 })).toBe('tcg')
    },
  )

  test('it is proven once a boot and QEMU; a proof that took too long is tried again', async () => {
    const cacheDir = folder()
    const stuck = standIn('exec sleep 60')
    const common = { ...probes('vmx'), cacheDir, timeoutMs: 500 }
    await detectAccelerator({ ...common, qemuBinary: stuck })
    await detectAccelerator({ ...common, qemuBinary: stuck })
    expect(asked(stuck)).toBe(2)
    for (const [body, answer] of [
      ['exit 85', 'kvm'],
      ['exit 1', 'tcg'],
    ] as const) {
      const qemuBinary = standIn(body)
      const settings = { ...common, qemuBinary, timeoutMs: 20_000 }
      expect(await detectAccelerator(settings)).toBe(answer)
      expect(await detectAccelerator(settings)).toBe(answer)
      expect(asked(qemuBinary)).toBe(1)
      expect(await detectAccelerator({ ...settings, bootId: 'another' })).toBe(answer)
      expect(asked(qemuBinary)).toBe(2)
      writeFileSync(join(cacheDir, 'kvm-proof.json'), '{')
      expect(await detectAccelerator(settings)).toBe(answer)
      expect(asked(qemuBinary)).toBe(3)
    }
  })

  test('the guest of the proof really runs under TCG, and not on a processor without long mode', async () => {
    const temporary = folder()
    const before = process.env['TMPDIR']
    process.env['TMPDIR'] = temporary
    onTestFinished(() => {
      if (before === undefined) delete process.env['TMPDIR']
      else process.env['TMPDIR'] = before
    })
    expect(await runsGuests('qemu-system-x86_64', 'tcg', 60_000)).toBe('yes')
    const short = join(folder(), 'qemu')
    writeFileSync(short, '#!/bin/sh\nexec qemu-system-x86_64 "$@" -cpu 486\n', { mode: 0o755 })
    expect(await runsGuests(short, 'tcg', 5_000)).not.toBe('yes')
    expect(readdirSync(temporary).filter((name) => name.includes('probe'))).toEqual([])
  })

  test('this host: as its processor says', async () => {
    const able = hasVirtualization(readFileSync('/proc/cpuinfo', 'utf8'))
    const found = await detectAccelerator()
    if (!able) expect(found).toBe('tcg')
  })
})

describe('QEMU’s version', () => {
  test('is read from what it prints', () => {
    expect(parseQemuVersion('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright')).toBe('7.2.22')
    expect(parseQemuVersion('QEMU emulator version 10.1 (x)')).toBe('10.1')
    expect(parseQemuVersion('something else 9.9.9')).toBeUndefined()
  })

  test('is compared by number', () => {
    expect(isAtLeast('10.0', '7.0')).toBe(true)
    expect(isAtLeast('7.0.0', '7.0')).toBe(true)
    expect(isAtLeast('6.10.3', '7.0')).toBe(false)
  })

  test('is asked for once, and again after an upgrade', async () => {
    const dir = folder()
    const path = join(dir, 'qemu')
    const write = (version: string) =>
      writeFileSync(path, `#!/bin/sh\necho x >>${dir}/asked\necho QEMU emulator version ${version}\n`, {
        mode: 0o755,
      })
    write('7.2.0')
    const qemu = new QemuBinary(path)
    expect(await qemu.find()).toMatchObject({ path, version: '7.2.0' })
    await qemu.find()
    expect(readFileSync(join(dir, 'asked'), 'utf8')).toBe('x\n')
    write('8.0.0')
    utimesSync(path, new Date(), new Date(Date.now() + 5000))
    expect((await qemu.find()).version).toBe('8.0.0')
  })
})

describe('host', () => {
  test('facts of this host', async () => {
    const facts = await hostFacts(new QemuBinary())
    expect(facts.cpus).toBeLessThanOrEqual(cpus().length)
    expect(facts.memoryBytes).toBeGreaterThan(2 ** 20)
    expect(facts.bootId).toMatch(/^[0-9a-f-]{36}$/)
    expect(facts.qemuVersion).toMatch(/^\d+\.\d+/)
  })

  test('a host without QEMU still has facts, and says what is wrong', async () => {
    const facts = await hostFacts(new QemuBinary('no-such-qemu'))
    expect(facts.qemuVersion).toBeUndefined()
    expect(facts.qemuProblem).toContain('no-such-qemu')
  })

  test('programs are found on PATH only', async () => {
    expect(await findProgram('sh', '/nowhere:/bin')).toBe('/bin/sh')
    expect(await findProgram('sh', '/nowhere')).toBeUndefined()
    const dir = folder()
    mkdirSync(join(dir, 'sh'), { mode: 0o755 })
    writeFileSync(join(dir, 'text'), '', { mode: 0o644 })
    expect(await findProgram('sh', `${dir}:/bin`)).toBe('/bin/sh')
    expect(await findProgram(join(dir, 'text'))).toBeUndefined()
    // What lies in the folder we happen to be in is nobody's choice; a path with a slash is.
    expect(await findProgram('package.json', '.:')).toBeUndefined()
    expect(await findProgram('./bin/plasmavmc')).toBe(join(process.cwd(), 'bin/plasmavmc'))
    await expect(new QemuBinary(join(dir, 'text')).find()).rejects.toMatchObject({
      message: expect.stringContaining('is no file that can be executed'),
    })
  })

  test('firmware code fits the variables; a store of a size that none has is damaged, with the way out', async () => {
    const vars = join(folder(), 'vars')
    writeFileSync(vars, Buffer.alloc(540_672))
    expect(await firmwareCodeFor(vars)).toContain('4M')
    writeFileSync(vars, 'x')
    await expect(firmwareCodeFor(vars)).rejects.toMatchObject({
      code: 'VariablesDamaged',
      message: `${vars} is damaged: no store of UEFI variables has 1 bytes`,
      hint: expect.stringContaining('remove it'),
    })
  })
})

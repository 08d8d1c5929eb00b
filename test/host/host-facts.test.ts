import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { detectAccelerator, hasVirtualization } from '../../src/host/accelerator.ts'
import { firmwareCodeFor } from '../../src/host/firmware.ts'
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

  test.each(['vmx', 'sse svm lm'])('KVM where the device opens and the processor has %s', async (flags) => {
    expect(await detectAccelerator(probes(flags))).toBe('kvm')
  })

  test('a device that opens is no proof', async () => {
    expect(await detectAccelerator(probes('sse hypervisor vmx_like'))).toBe('tcg')
  })

  test('a processor with virtualization is no proof either', async () => {
    const { cpuinfo } = probes('vmx')
    expect(await detectAccelerator({ cpuinfo, kvmDevice: '/nowhere/kvm' })).toBe('tcg')
    expect(await detectAccelerator({ cpuinfo: '/nowhere', kvmDevice: '/dev/null' })).toBe('tcg')
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

  test('firmware code fits the variables, or is told to be missing', async () => {
    const vars = join(folder(), 'vars')
    writeFileSync(vars, Buffer.alloc(540_672))
    expect(await firmwareCodeFor(vars)).toContain('4M')
    writeFileSync(vars, 'x')
    await expect(firmwareCodeFor(vars)).rejects.toMatchObject({ code: 'FirmwareMissing', hint: /ovmf/ })
  })
})

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { identityFile, macOf, qemuArgs, specHash, tapName } from '../../src/host/qemu-args.ts'
import { nodeNames } from '../../src/host/qemu-disks.ts'
import { escapeValue, optionList, parseOptionList } from '../../src/host/qemu-options.ts'
import { identityOf } from '../../src/host/scan.ts'
import { goldenInput, goldenPlaces, goldenSpecs, machine, uid } from './machines.ts'

describe('arguments of QEMU', () => {
  test.each(Object.keys(goldenSpecs))('%s is as its golden file says', async (name) => {
    const args = qemuArgs(goldenInput(name, goldenPlaces(name)))
    const text = args.map((arg) => arg.replaceAll('\n', '\\n')).join('\n')
    await expect(`${text}\n`).toMatchFileSnapshot(`golden/${name}.txt`)
  })

  test.each(Object.keys(goldenSpecs))('%s is read back as the same identity', (name) => {
    const places = goldenPlaces(name)
    const argv = ['qemu-system-x86_64', ...qemuArgs(goldenInput(name, places))]
    const { runDir } = places
    expect(identityOf(argv)).toEqual({ uid, name: 'shop/web', launchId: 'l-1', epoch: 3, runDir })
  })

  test('a machine without a uid, or with one that is a path, has no arguments', () => {
    for (const bad of ['', '../../etc', uid.toUpperCase()]) {
      const input = { ...goldenInput('pc', goldenPlaces('pc')), vm: machine({}, bad) }
      expect(() => qemuArgs(input)).toThrow(expect.objectContaining({ code: 'BadUid' }))
    }
  })

  test('a disk that is not there yet is named', () => {
    const input = { ...goldenInput('pc', goldenPlaces('pc')), disks: new Map<string, string>() }
    expect(() => qemuArgs(input)).toThrow(expect.objectContaining({ code: 'DiskMissing' }))
  })

  test('block devices are opened as devices', () => {
    const input = goldenInput('pc', goldenPlaces('pc'))
    const args = qemuArgs({ ...input, disks: new Map([['root', '/dev/vg0/root']]) })
    expect(args.join(' ')).toContain(
      '"driver":"host_device","node-name":"file-root","filename":"/dev/vg0/root"',
    )
  })

  test('a watchdog that is to power off only holds the guest, so that it can be asked why', () => {
    const withWatchdog = (action: string) =>
      qemuArgs({
        ...goldenInput('pc', goldenPlaces('pc')),
        vm: machine({ devices: { watchdog: { action } } }),
      })
    for (const [asked, told] of [
      ['poweroff', 'pause'],
      ['pause', 'pause'],
      ['reset', 'reset'],
      ['none', 'none'],
      ['inject-nmi', 'inject-nmi'],
    ])
      expect(withWatchdog(asked!)).toContain(`shutdown=pause,panic=pause,reboot=reset,watchdog=${told}`)
  })

  test('names of nodes and devices never collide, whatever the disks are called', () => {
    const names = [
      'x',
      'x-file',
      'file-x',
      'h-1',
      'a'.repeat(26),
      'a'.repeat(27),
      'a'.repeat(28),
      'a'.repeat(63),
    ]
    const nodes = names.flatMap((name) => Object.values(nodeNames(name)))
    expect(new Set(nodes).size).toBe(nodes.length)
    for (const node of nodes) expect(node.length).toBeLessThanOrEqual(31)
  })

  test('node names stay within QEMU’s 31 characters whatever the disk is called', () => {
    const vm = machine({ disks: [{ name: 'd'.repeat(63), size: '1Gi' }] })
    const disks = new Map([['d'.repeat(63), '/d']])
    const args = qemuArgs({ ...goldenInput('pc', goldenPlaces('pc')), vm, disks })
    for (const arg of args.filter((a) => a.startsWith('{'))) {
      expect(JSON.parse(arg)['node-name'].length).toBeLessThanOrEqual(31)
    }
  })
})

describe('option lists', () => {
  test('what is written is read back, whatever the value', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        const read = parseOptionList(optionList('driver', { a, b, c: undefined, d: true }), 'type')
        expect([...read]).toEqual([
          ['type', 'driver'],
          ['a', a],
          ['b', b],
          ['d', 'on'],
        ])
      }),
    )
  })

  test('only commas are special', () => expect(escapeValue(`a,b "c" 'd' e=f`)).toBe(`a,,b "c" 'd' e=f`))
})

describe('names derived from a uid', () => {
  test('a tap fits in an interface name and differs by network', () => {
    expect(tapName(uid, 'lan')).toMatch(/^vm[0-9a-f]{11}$/)
    expect(tapName(uid, 'lan')).not.toBe(tapName(uid, 'nat'))
  })

  test('a MAC is stable, unicast and locally administered', () => {
    expect(macOf(uid, 'lan')).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/)
    expect(macOf(uid, 'lan')).toBe(macOf(uid, 'lan'))
  })

  test('the identity lies below opt/, where QEMU wants what is not its own', () => {
    expect(identityFile).toMatch(/^opt\//)
  })
})

describe('hash of what needs a restart', () => {
  const { spec } = machine({ memory: '1Gi', disks: [{ name: 'root', size: '1Gi' }] })

  test('does not depend on the order of keys', () => {
    const reversed = Object.fromEntries(Object.entries(spec).reverse()) as typeof spec
    expect(specHash(reversed)).toBe(specHash(spec))
  })

  test('changes with what a guest sees, and only with that', () => {
    const same = {
      ...spec,
      runStrategy: 'Halted',
      terminationGracePeriodSeconds: 1,
      hostSelector: { a: 'b' },
    }
    expect(specHash(same as typeof spec)).toBe(specHash(spec))
    expect(specHash({ ...spec, memory: '2Gi' })).not.toBe(specHash(spec))
    expect(specHash({ ...spec, disks: [] })).not.toBe(specHash(spec))
  })
})

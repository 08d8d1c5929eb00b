import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { applied, specDiff, wordsOf } from '../../../src/controllers/vm/live-changes.ts'
import type { MachineFacts } from '../../../src/controllers/vm/machine-facts.ts'
import { parseNetdevs, parseUsernet } from '../../../src/controllers/vm/machine-facts.ts'
import { spec } from './fixture.ts'

const root = { name: 'root', size: '1Gi' }
const data = { name: 'data', size: '1Gi' }
const forward = { hostPort: 8080, guestPort: 80 }
const nat = (...forwards: object[]) => ({ name: 'nat', user: { forwards } })

const facts = (more: Partial<MachineFacts> = {}): MachineFacts => ({
  ...{ devices: new Map(), freePorts: ['hotplug0'], nodes: new Set(), disks: new Map(), netdevs: new Set() },
  forwards: new Map(),
  ...more,
})

type Spec = Record<string, unknown>

/** Words of the changes, paths of what waits, and what is refused. */
function diff(running: Spec, wanted: Spec, known?: MachineFacts) {
  const { changes, restart, refused } = specDiff(spec(running), spec(wanted), known)
  return { live: changes.map(wordsOf), restart, refused: refused.length }
}

describe('what differs is', () => {
  test.each<[string, Spec, Spec, string[], string[]]>([
    ['nothing', {}, {}, [], []],
    ['policy', {}, { runStrategy: 'Halted' }, ['policy'], []],
    ['policy', {}, { terminationGracePeriodSeconds: 1, hostSelector: { a: 'b' } }, ['policy'], []],
    ['memory', {}, { memory: '1Gi' }, [], ['spec.memory']],
    ['the same memory in other words', { memory: '1Gi' }, { memory: '1024Mi' }, [], []],
    ['cores', {}, { cpu: { cores: 2 } }, [], ['spec.cpu.cores']],
    ['several', {}, { cpu: { cores: 2, model: 'host' } }, [], ['spec.cpu.cores', 'spec.cpu.model']],
    ['a board', {}, { machine: 'pc' }, [], ['spec.machine']],
    ['a kernel', {}, { kernel: { image: 'k' } }, [], ['spec.kernel']],
    [
      'a command line',
      { kernel: { image: 'k', cmdline: 'a' } },
      { kernel: { image: 'k', cmdline: 'b' } },
      [],
      ['spec.kernel.cmdline'],
    ],
    ['user data', { cloudInit: {} }, { cloudInit: { userData: 'x' } }, [], ['spec.cloudInit.userData']],
    ['a device', {}, { devices: { rng: false } }, [], ['spec.devices.rng']],
    ['a new watchdog', {}, { devices: { watchdog: {} } }, [], ['spec.devices.watchdog']],
    [
      'the action of a watchdog',
      { devices: { watchdog: { action: 'reset' } } },
      { devices: { watchdog: { action: 'poweroff' } } },
      ['watchdog action poweroff'],
      [],
    ],
    ['a new disk', { disks: [root] }, { disks: [root, data] }, ['new disk data'], []],
    ['no disk more', { disks: [root, data] }, { disks: [root] }, ['removal of disk data'], []],
    ['a sata disk', { disks: [root] }, { disks: [root, { ...data, bus: 'sata' }] }, [], ['spec.disks[data]']],
    ['a scsi disk', { disks: [root] }, { disks: [root, { ...data, bus: 'scsi' }] }, [], ['spec.disks[data]']],
    [
      'a second scsi disk',
      { disks: [{ ...root, bus: 'scsi' }] },
      {
        disks: [
          { ...root, bus: 'scsi' },
          { ...data, bus: 'scsi' },
        ],
      },
      ['new disk data'],
      [],
    ],
    ['no sata disk more', { disks: [{ ...data, bus: 'sata' }] }, { disks: [] }, [], ['spec.disks[data]']],
    [
      'a disk of a microvm',
      { machine: 'microvm' },
      { machine: 'microvm', disks: [data] },
      [],
      ['spec.disks[data]'],
    ],
    ['a disk of a pc', { machine: 'pc' }, { machine: 'pc', disks: [data] }, ['new disk data'], []],
    ['a larger disk', { disks: [root] }, { disks: [{ ...root, size: '2Gi' }] }, ['growth of disk root'], []],
    [
      'the same size in other words',
      { disks: [root] },
      { disks: [{ ...root, size: '1024Mi' }] },
      ['policy'],
      [],
    ],
    ['a cache', { disks: [root] }, { disks: [{ ...root, cache: 'none' }] }, [], ['spec.disks[root].cache']],
    ['an order', { disks: [root, data] }, { disks: [data, root] }, [], ['spec.disks (their order)']],
    ['a new disk before', { disks: [root] }, { disks: [data, root] }, ['new disk data'], []],
    [
      'the size of a given disk',
      { disks: [{ name: 'a', path: '/a' }] },
      { disks: [{ name: 'a', path: '/a', size: '1Gi' }] },
      ['policy'],
      [],
    ],
    [
      'a forward',
      { networks: [nat()] },
      { networks: [nat(forward)] },
      ['forward tcp:127.0.0.1:8080-:80 of network nat'],
      [],
    ],
    [
      'the guest’s port of a forward',
      { networks: [nat(forward)] },
      { networks: [nat({ ...forward, guestPort: 81 })] },
      [
        'removal of forward tcp:127.0.0.1:8080-:80 of network nat',
        'forward tcp:127.0.0.1:8080-:81 of network nat',
      ],
      [],
    ],
    ['the default in other words', { networks: [{ name: 'nat' }] }, { networks: [nat()] }, [], []],
    [
      'a card',
      { networks: [nat()] },
      { networks: [{ ...nat(), model: 'e1000' }] },
      [],
      ['spec.networks[nat].model'],
    ],
    [
      'another kind',
      { networks: [nat()] },
      { networks: [{ name: 'nat', tap: { name: 't' } }] },
      [],
      ['spec.networks[nat].tap'],
    ],
    ['a new network', {}, { networks: [nat()] }, ['new network nat'], []],
    ['a new bridge', {}, { networks: [{ name: 'lan', bridge: { name: 'b' } }] }, [], ['spec.networks[lan]']],
    ['no network more', { networks: [nat()] }, {}, ['removal of network nat'], []],
  ])('%s', (_name, running, wanted, live, restart) => {
    expect(diff(running, wanted)).toEqual({ live, restart, refused: 0 })
  })

  test('a smaller disk is refused, not kept for the next start', () => {
    expect(diff({ disks: [root] }, { disks: [{ ...root, size: '1Mi' }] })).toEqual({
      ...{ live: [], restart: [], refused: 1 },
    })
  })

  test('what QEMU says decides what can be plugged', () => {
    const two = { disks: [root, data] }
    const onRoot = facts({ devices: new Map([['disk-data', '/machine/q35/pcie.0']]) })
    expect(diff(two, { disks: [root] }, onRoot).restart).toEqual(['spec.disks[data]'])
    const onPort = facts({ devices: new Map([['disk-data', '/machine/peripheral/hotplug1/hotplug1']]) })
    expect(diff(two, { disks: [root] }, onPort).live).toEqual(['removal of disk data'])
    const full = facts({ freePorts: [] })
    expect(diff({}, { disks: [data], networks: [nat()] }, full).restart).toEqual([
      'spec.disks[data]',
      'spec.networks[nat]',
    ])
    expect(diff({}, { disks: [data], networks: [nat()] }, facts())).toEqual({
      ...{ live: ['new disk data'], restart: ['spec.networks[nat]'], refused: 0 },
    })
    const controller = facts({ devices: new Map([['scsi0', '/machine/q35/pcie.0']]) })
    expect(diff({}, { disks: [{ ...data, bus: 'scsi' }] }, controller).live).toEqual(['new disk data'])
  })
})

test('once every change is made, nothing but what needs a restart is left', () => {
  const size = fc.constantFrom('1Gi', '1024Mi', '2Gi')
  const disk = fc.record({ size, bus: fc.constantFrom('virtio', 'scsi', 'usb'), readOnly: fc.boolean() })
  const network = fc.record({
    model: fc.constantFrom('virtio', 'e1000'),
    forwards: fc.uniqueArray(fc.constantFrom(80, 81, 82)),
  })
  const named = <T extends object>(one: fc.Arbitrary<T>) =>
    fc.uniqueArray(fc.tuple(fc.constantFrom('a', 'b', 'c', 'd'), one), { selector: ([name]) => name })
  const any = fc
    .record({
      disks: named(disk),
      networks: named(network),
      action: fc.constantFrom('reset', 'pause', 'poweroff'),
      memory: fc.constantFrom('1Gi', '2Gi'),
      runStrategy: fc.constantFrom('Always', 'Halted'),
    })
    .map(({ disks, networks, action, ...rest }) =>
      spec({
        ...rest,
        devices: { watchdog: { action } },
        disks: disks.map(([name, of]) => ({ name, ...of })),
        networks: networks.map(([name, { model, forwards }]) => ({
          ...{ name, model },
          user: { forwards: forwards.map((guestPort) => ({ hostPort: guestPort + 8000, guestPort })) },
        })),
      }),
    )
  fc.assert(
    fc.property(any, any, (running, wanted) => {
      const { changes, restart } = specDiff(running, wanted)
      const after = changes.reduce((so, change) => applied(so, wanted, change), running)
      const left = specDiff(after, wanted)
      // A port that was taken may have kept another from its place.
      if (!restart.some((path) => /^spec\.(disks|networks)\[.\]$/.test(path)))
        expect(left.changes).toEqual([])
      expect(left.restart.filter((path) => !restart.includes(path) && !path.includes('order'))).toEqual([])
      expect(specDiff(wanted, wanted)).toEqual({ changes: [], restart: [], refused: [] })
    }),
    { numRuns: 2_000 },
  )
})

describe('what QEMU’s human monitor says is read', () => {
  // As QEMU 7.2 writes it.
  const usernet = [
    'Hub -1 (net-nat):',
    '  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ',
    '  TCP[ESTABLISHED]   19       10.0.2.15 49152        10.0.2.2  8080     0     0',
    '  TCP[HOST_FORWARD]  11       127.0.0.1 42111       10.0.2.15    22     0     0',
    'Hub -1 (net-x):',
    '  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ',
    '  UDP[HOST_FORWARD]  15               * 42113       10.0.2.15    81     0     0',
    '',
  ].join('\r\n')
  const network = [
    'virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56',
    ' \\ net-nat: index=0,type=user,net=10.0.2.0,restrict=off',
    'net-x: index=0,type=user,net=10.0.2.0,restrict=off',
    '',
  ].join('\r\n')

  test('forwards by network', () => {
    expect([...parseUsernet(usernet)]).toEqual([
      ['net-nat', ['tcp:127.0.0.1:42111-:22']],
      ['net-x', ['udp:0.0.0.0:42113-:81']],
    ])
    expect([...parseUsernet('')]).toEqual([])
  })

  test('networks with and without a card', () => {
    expect([...parseNetdevs(network)]).toEqual(['net-nat', 'net-x'])
  })
})

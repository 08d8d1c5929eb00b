import { describe, expect, test } from 'vitest'
import { exportKey, isLoopback, isNbdHost, nbd, nbdUrl, writableExports } from '../../src/resources/nbd.ts'
import { parse } from '../../src/resources/parse.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

/** Reasons and fields of what a machine with these disks is refused for. */
function causesOf(...disks: readonly object[]) {
  const head = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata: { name: 'a' } }
  const spec = { disks: disks.map((disk, i) => ({ name: `d${i}`, format: 'raw', ...disk })) }
  const parsed = parse(VirtualMachine, { ...head, spec })
  return parsed.ok ? [] : parsed.causes.map(({ reason, field }) => `${reason} ${field}`)
}

const at = (host: string, more: object = {}) => ({ nbd: { host, ...more } })
const invalid = (member: string) => [`FieldValueInvalid spec.disks[0].${member}`]

describe('a disk over NBD', () => {
  test.each([
    ['a name', at('nas')],
    ['a full name', at('NAS-1.storage_net.example.org.')],
    ['an IPv4 address', at('192.0.2.7', { port: 1, exportName: 'x' })],
    ['an IPv6 address', at('2001:db8::7')],
    ['any export name', at('nas', { exportName: 'disks/a, "b" é' })],
    ['read-only', { ...at('nas'), readOnly: true }],
  ])('%s is accepted', (_what, disk) => expect(causesOf(disk)).toEqual([]))

  test.each([
    ['no host', { nbd: {} }, ['FieldValueRequired spec.disks[0].nbd.host']],
    ['an empty host', at(''), invalid('nbd.host')],
    ['brackets', at('[::1]'), invalid('nbd.host')],
    ['a zone', at('fe80::1%eth0'), invalid('nbd.host')],
    ['a bad IPv6 address', at('2001:db8:::7'), invalid('nbd.host')],
    ['IPv4 in IPv6 form', at('::ffff:192.0.2.7'), invalid('nbd.host')],
    ['half an IPv4 address', at('127.1'), invalid('nbd.host')],
    ['a number', at('2130706433'), invalid('nbd.host')],
    ['a hexadecimal address', at('0x7f.0.0.1'), invalid('nbd.host')],
    ['a port in the host', at('nas:10809'), invalid('nbd.host')],
    ['a URL', at('nbd://nas'), invalid('nbd.host')],
    ['an empty label', at('a..b'), invalid('nbd.host')],
    ['a dot before', at('.a'), invalid('nbd.host')],
    ['port 0', at('nas', { port: 0 }), invalid('nbd.port')],
    ['a port too high', at('nas', { port: 65_536 }), invalid('nbd.port')],
    ['a line break in the name', at('nas', { exportName: 'a\nb' }), invalid('nbd.exportName')],
    ['a NUL in the name', at('nas', { exportName: 'a\0' }), invalid('nbd.exportName')],
    [
      'a name too long',
      at('nas', { exportName: 'x'.repeat(1_025) }),
      ['FieldValueTooLong spec.disks[0].nbd.exportName'],
    ],
    ['qcow2', { ...at('nas'), format: 'qcow2' }, invalid('format')],
    ['a size', { ...at('nas'), size: '1Gi' }, invalid('size')],
    ['a path too', { ...at('nas'), path: '/x' }, invalid('nbd')],
    ['an image too', { ...at('nas'), image: { source: 'x' } }, invalid('nbd')],
  ])('%s is refused by its field', (_what, disk, causes) => expect(causesOf(disk)).toEqual(causes))

  test('is one disk of a machine only, however its server is written', () => {
    expect(causesOf(at('nas'), at('NAS.'))).toEqual(['FieldValueInvalid spec.disks[1].nbd'])
    expect(causesOf(at('nas'), at('nas', { exportName: 'b' }), at('nas', { port: 1 }))).toEqual([])
  })
})

const keyOf = (host: string, more: object = {}) => exportKey(nbd.parse({ host, ...more }))

describe('which exports are the same', () => {
  test.each([
    ['case', 'NAS.Example', 'nas.example'],
    ['a dot at the end', 'nas.', 'nas'],
    ['forms of IPv6', '2001:DB8:0:0::7', '2001:db8::7'],
    ['this host by name and address', 'localhost', '127.0.0.1'],
    ['this host by IPv6', '::1', '127.0.0.1'],
    ['this host by no address', '0.0.0.0', '127.0.0.1'],
  ])('%s makes no difference', (_what, one, other) => expect(keyOf(one)).toBe(keyOf(other)))

  test('port, name of the export and its case do', () => {
    const keys = [
      keyOf('a'),
      keyOf('a', { port: 1 }),
      keyOf('a', { exportName: 'x' }),
      keyOf('a', { exportName: 'X' }),
    ]
    expect(new Set([...keys, keyOf('127.0.0.2'), keyOf('127.0.0.1')]).size).toBe(6)
  })

  test('they are written so that neither host, port nor name runs into the next', () => {
    expect(keyOf('2001:db8::7', { exportName: 'a/b' })).toBe('[2001:db8::7]:10809/a/b')
    expect(nbdUrl(nbd.parse({ host: '::1', exportName: 'x' }))).toBe('nbd://[::1]:10809/x')
  })

  test('only what is written to counts', () => {
    const disk = { nbd: nbd.parse({ host: 'NAS' }), readOnly: false }
    expect(writableExports([{ readOnly: false }, disk, { ...disk, readOnly: true }])).toEqual([
      { key: 'nas:10809/', field: 'spec.disks[1].nbd' },
    ])
  })
})

test.each([
  ['localhost', true],
  ['db.LOCALHOST.', true],
  ['127.9.9.9', true],
  ['0:0:0:0:0:0:0:1', true],
  ['::', true],
  ['localhost.example', false],
  ['10.0.0.1', false],
  ['2001:db8::1', false],
])('%s leads to the host itself: %s', (host, leads) => {
  expect(isNbdHost(host)).toBe(true)
  expect(isLoopback(host)).toBe(leads)
})

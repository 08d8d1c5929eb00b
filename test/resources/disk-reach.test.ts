import { expect, test } from 'vitest'
import { localDisks } from '../../src/resources/disk-reach.ts'
import type { VmStatus } from '../../src/resources/vm.ts'
import { machine, pool } from '../controllers/placement/fixture.ts'

const pools = [pool('nfs', true, '/nfs'), pool('local', false, '/local')]

type State = Omit<VmStatus['disks'][number], 'name'>
const made: State = { path: '/somewhere/root.qcow2', state: 'Ready' }

/** The field that ties a disk to its host. */
function tie(disk: object, status: State | undefined = made, more: Partial<VmStatus> = {}) {
  const disks = status ? [{ name: 'root', ...status }] : []
  const vm = machine('m', { disks: [{ name: 'root', ...disk }] }, { disks, ...more })
  return localDisks(vm, pools)[0]?.field
}

const sha256 = 'a'.repeat(64)

test.each([
  ['the default pool', { size: '1Gi' }, 'spec.disks[0].pool'],
  ['a pool of each host', { size: '1Gi', pool: 'local' }, 'spec.disks[0].pool'],
  ['a pool that is not declared', { size: '1Gi', pool: 'gone' }, 'spec.disks[0].pool'],
  ['a shared pool', { size: '1Gi', pool: 'nfs' }, undefined],
  ['a path', { path: '/srv/x.qcow2' }, 'spec.disks[0].path'],
  ['a path in a shared pool', { path: '/nfs/x.qcow2' }, undefined],
  ['a path that only looks like it', { path: '/nfsx/x.qcow2' }, 'spec.disks[0].path'],
  ['a path that leads out of it', { path: '/nfs/../srv/x.qcow2' }, 'spec.disks[0].path'],
  ['a path in a pool of each host', { path: '/local/x.qcow2' }, 'spec.disks[0].path'],
  ['an image of the host', { image: { source: 'x.img' }, pool: 'nfs' }, 'spec.disks[0].image'],
  ['a downloaded image', { image: { source: 'https://x/y', sha256 }, pool: 'nfs' }, 'spec.disks[0].image'],
  ['an image in a shared pool', { image: { source: '/nfs/x.img' }, pool: 'nfs' }, undefined],
  ['an export of another host', { nbd: { host: 'nas' }, format: 'raw' }, undefined],
  ['an export of its own host', { nbd: { host: 'LocalHost' }, format: 'raw' }, 'spec.disks[0].nbd.host'],
  ['a copy of an image', { image: { source: 'x.img' }, pool: 'nfs', format: 'raw' }, undefined],
] as const)('%s', (_what, disk, field) => {
  expect(tie(disk)).toBe(field)
})

test('a declared default pool that is shared ties nothing', () => {
  const vm = machine('m', { disks: [{ name: 'root', size: '1Gi' }] }, { disks: [{ name: 'root', ...made }] })
  expect(localDisks(vm, [pool('default', true)])).toEqual([])
})

const exit = { reason: 'HostLost', at: '2026-01-01T00:00:00Z' } as const

test.each([
  ['is not told of', undefined, {}, false],
  ['is to be made', { state: 'Pending' }, {}, false],
  ['is being made', { state: 'Preparing' }, {}, false],
  ['is there', { state: 'Ready' }, {}, true],
  ['is there and is to grow', { state: 'Pending', path: '/x' }, {}, true],
  ['failed, and the machine never ran', { state: 'Failed' }, {}, false],
  ['failed, and the machine ran', { state: 'Failed' }, { lastExit: exit }, true],
  [
    'failed, while the machine may run',
    { state: 'Failed' },
    { launch: { id: 'l', at: '', bootId: '' } },
    true,
  ],
] as const)('a disk that %s', (_what, state, more, ties) => {
  expect(tie({ size: '1Gi' }, state ?? { state: 'Pending' }, more) !== undefined).toBe(ties)
})

test('an export of its own host ties a machine that ran, also while it is not known to be there', () => {
  const disk = { nbd: { host: '127.0.0.1' }, format: 'raw' }
  expect(tie(disk, { state: 'Pending' })).toBeUndefined()
  expect(tie(disk, { state: 'Pending' }, { lastExit: exit })).toBe('spec.disks[0].nbd.host')
})

test('the seed and what the spec has no more tie nothing', () => {
  const disks = ['cloud-init', 'efi-vars', 'old'].map((name) => ({ name, ...made }))
  expect(localDisks(machine('m', { firmware: 'uefi' }, { disks }), pools)).toEqual([])
})

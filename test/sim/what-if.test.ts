import { expect, test } from 'vitest'
import { product } from '../../src/sim/product.ts'
import { dumpOf, whatIf } from '../../src/sim/what-if.ts'

const apiVersion = 'plasmavmc.io/v1alpha1'
const host = (name: string, memory: string) => ({
  ...{ apiVersion, kind: 'Host', metadata: { name }, spec: { fencing: { mode: 'guard' } } },
  status: { cpus: 8, memory },
})
const machine = (name: string, n: number, spec: object) => ({
  ...{ apiVersion, kind: 'VirtualMachine', spec, status: { hostName: 'host-b' } },
  metadata: { name, namespace: 'default', uid: `${String(n).repeat(8)}-1111-4111-8111-111111111111` },
})
const pool = {
  apiVersion,
  kind: 'StoragePool',
  metadata: { name: 'default' },
  spec: { path: '/p', shared: true },
}
const disks = [{ name: 'root', size: '1Gi' }]
const recovery = { onHostLoss: 'Failover' }
const items = [
  ...[pool, host('host-a', '16Gi'), host('host-b', '32Gi'), host('host-c', '1Gi')],
  machine('web', 1, { memory: '4Gi', disks, recovery }),
  machine('big', 2, { memory: '20Gi', disks, recovery }),
  machine('pet', 3, { memory: '1Gi' }),
]

test('tells which machines of a lost host would run where, and why others would not', {
  timeout: 300_000,
}, async () => {
  const answer = await whatIf(dumpOf([{ kind: 'List', items }]), ['host-b'], product)
  expect(answer.troubled).toEqual([])
  expect(answer.moved).toMatchObject([
    { machine: 'default/web', from: 'host-b', to: 'host-a', status: 'Running' },
  ])
  expect(answer.moved[0]?.afterMs).toBeLessThan(30_000)
  expect(answer.stuck.map(({ machine: name, status }) => `${name} ${status}`).sort()).toEqual([
    'default/big Pending (Unschedulable)',
    'default/pet Unknown (HostLost)',
  ])
})

test('a disk over NBD goes wherever its machine does, and one of the lost host does not', {
  timeout: 300_000,
}, async () => {
  const onExport = (at: string) => [{ name: 'root', format: 'raw', nbd: { host: at, exportName: 'x' } }]
  const hosts = [host('host-a', '16Gi'), host('host-b', '32Gi'), host('host-c', '1Gi')]
  const dump = [
    ...hosts,
    machine('roamer', 1, { memory: '1Gi', disks: onExport('nas'), recovery }),
    machine('homely', 2, { memory: '1Gi', disks: onExport('localhost'), recovery }),
  ]
  const answer = await whatIf(dumpOf([{ kind: 'List', items: dump }]), ['host-b'], product)
  expect(answer.troubled).toEqual([])
  expect(answer.moved).toMatchObject([{ machine: 'default/roamer', to: 'host-a', status: 'Running' }])
  expect(answer.stuck).toMatchObject([{ machine: 'default/homely', status: 'Unknown (StorageLost)' }])
})

test('names what is wrong with a dump', async () => {
  expect(() => dumpOf([{ kind: 'List', items: [] }])).toThrow('no Host')
  expect(() => dumpOf([{ ...host('host-a', '1Gi'), spec: { fencing: { mode: 'hope' } } }])).toThrow(
    'spec.fencing.mode',
  )
  await expect(whatIf(dumpOf([host('host-a', '1Gi')]), ['host-z'], product)).rejects.toThrow('host-z')
})

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Host, Lease } from '../../src/resources/kinds.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { Lab, processOf, tiny } from './lab.ts'
import { startTimeOf } from './proc.ts'

const leasePath = '/apis/coordination.k8s.io/v1/namespaces/plasmavmc-system/leases/host-lab'
const poolsPath = '/apis/plasmavmc.io/v1alpha1/storagepools'

let etcd: EtcdLab
let lab: Lab
let mount: string
let frozen = false

/** A file system of its own on a loop device: what writes to it while it is frozen no signal ends. */
function freeze(on: boolean): void {
  if (frozen === on) return
  execFileSync('fsfreeze', [on ? '-f' : '-u', mount])
  frozen = on
}

beforeAll(async () => {
  etcd = await EtcdLab.start()
  const endpoints = etcd.endpoints.join(',')
  lab = await Lab.start({
    flags: ['--store', 'etcd', '--etcd-endpoints', endpoints, '--peer-listen', '127.0.0.1:0'],
  })
  const image = join(lab.dir, 'image')
  mount = join(lab.dir, 'm')
  mkdirSync(mount)
  writeFileSync(image, '')
  truncateSync(image, 64 * 1024 ** 2)
  execFileSync('mkfs.ext4', ['-q', image])
  execFileSync('mount', ['-o', 'loop', image, mount])
})
afterAll(async () => {
  if (frozen) freeze(false)
  await lab?.end()
  for (const { pid } of lab?.qemus() ?? []) process.kill(pid, 'SIGKILL')
  await lab?.until('no QEMU is left', () => lab.qemus().length === 0)
  // What a process held it lets go of after its command line is gone.
  if (mount) await lab?.until('its file system is let go', () => spawnSync('umount', [mount]).status === 0)
  await lab?.close()
  await etcd?.close()
})

/** Whether a thread of a process is in uninterruptible sleep. */
const hangs = (pid: number) =>
  readdirSync(`/proc/${pid}/task`).some((thread) =>
    /^State:\s+D/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')),
  )
const host = () => lab.client.json<Host>('GET', '/apis/plasmavmc.io/v1alpha1/hosts/lab')
const said = async (type: string) => (await host()).status?.conditions.find((one) => one.type === type)

test('a host says which QEMU its guard waits for; of a Manual one beside it one thing is said; both come back', async () => {
  const pool = { metadata: { name: 'slow' }, spec: { path: join(mount, 'pool') } }
  const kind = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'StoragePool' }
  await lab.client.json('POST', poolsPath, { body: { ...kind, ...pool } })
  const disk = { name: 'data', size: '8Mi', format: 'raw', pool: 'slow' }
  await lab.create(tiny('web', { disks: [disk], recovery: { onHostLoss: 'Failover' } }))
  await lab.create(tiny('pet'))
  const web = processOf(await lab.running('web'))
  const pet = processOf(await lab.running('pet'))
  expect(await said('Guarded')).toMatchObject({ status: 'True', reason: 'LeaseHeld' })

  freeze(true)
  await lab.patch('web', { spec: { disks: [{ ...disk, size: '12Mi' }] } })
  await lab.until('its QEMU hangs', () => hangs(web.pid))
  const lease = await lab.client.json<Lease>('GET', leasePath)
  const { leaseTransitions = 0 } = lease.spec
  const spec = { ...lease.spec, holderIdentity: 'fenced', leaseTransitions: leaseTransitions + 1 }
  const { resourceVersion: _, ...metadata } = lease.metadata
  await lab.client.json('PUT', leasePath, { body: { ...lease, metadata, spec } })

  await lab.until('its guard says why it waits', async () => (await said('Guarded'))?.reason === 'Stopping')
  const { message = '' } = (await said('Guarded')) ?? {}
  expect(message).toContain('the lease of this host was taken: fenced')
  await lab.until('and for whom', async () => {
    const { message = '' } = (await said('Guarded')) ?? {}
    return message.includes(`default/web (pid ${web.pid}, of which threads are in uninterruptible sleep`)
  })
  const marked = await lab.sees('pet', 'is marked, with what its server sees', ({ status }) => {
    return status?.reason === 'HostLost' && (status.message?.endsWith('says: Running') ?? false)
  })
  expect(marked.status?.phase).toBe('Unknown')
  expect(startTimeOf(web.pid)).toBe(web.startTime)
  expect((await lab.cli('describe', 'host', 'lab')).stdout).toMatch(/Guarded +False .*Stopping/)

  freeze(false)
  await lab.until('the lease is held again', async () => (await said('Guarded'))?.status === 'True')
  await lab.until('the host is Ready', async () => (await said('Ready'))?.status === 'True')
  expect(processOf(await lab.running('pet'))).toEqual(pet)
  const again = await lab.sees('web', 'runs anew', ({ status }) => {
    return status?.phase === 'Running' && status.process?.pid !== web.pid
  })
  expect(again.status?.restarts).toBe(1)
})

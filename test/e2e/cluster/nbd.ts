import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { within } from '../../../src/drill/cluster/processes.ts'
import { blankFile, NbdServer } from '../../host/nbd-server.ts'
import { processOf, uidOf } from '../lab.ts'
import { brokenBeats, diskBeats } from './beats.ts'
import { beating } from './machines.ts'
import { cluster } from './shared.ts'

const exportName = 'beats'
const port = 10_809
let server: NbdServer
let file: string

beforeAll(async () => {
  // The machine that etcd is on serves the disk too: it is none of the hosts, and goes on when one is lost.
  file = blankFile(join(cluster.dir, 'beats.raw'), 16 << 20)
  const under = ['nsenter', `--net=/run/netns/${cluster.network.namespace('etcd')}`, '--']
  server = new NbdServer({ file, exportName, port, bind: cluster.etcdAddress, under })
  server.start()
  // Otherwise no host promises that the machine may be started elsewhere.
  for (const { name } of cluster.hosts)
    await within(cluster.network.namespace(name), 'sysctl', '-qw', 'net.ipv4.tcp_orphan_retries=1')
})
afterAll(() => server?.kill())

const onExport = (host: string) => ({
  disks: [{ name: 'data', format: 'raw', nbd: { host, exportName } }],
})

test('a host loses its power: its machine runs elsewhere on the same export, with all that it had written', async () => {
  const lost = await cluster.follower()
  await cluster.createOn(lost, beating('beater', onExport(cluster.etcdAddress)))
  const before = await cluster.sees('beater', 'says that it can move', ({ status }) =>
    Boolean(status?.conditions.some(({ type, status: is }) => type === 'Movable' && is === 'True')),
  )
  const uid = uidOf(before)
  await cluster.beats(uid, 2)
  await lost.powerOff()
  // Its host can't say what becomes of it: whoever asks meanwhile finds the export taken.
  await cluster.create(beating('second', onExport(cluster.etcdAddress)))
  const after = await cluster.running('beater', cluster.others(lost))
  await cluster.beats(uid, 2)
  expect(cluster.boots(uid)).toBe(2)
  expect(after.status?.lastExit).toMatchObject({ reason: 'HostLost', launchId: processOf(before).launchId })
  expect(after.status?.exports).toEqual([`${cluster.etcdAddress}:${port}/${exportName}`])
  const second = await cluster.sees('second', 'is refused', ({ status }) => status?.reason === 'DiskInUse')
  expect(cluster.qemus(uidOf(second))).toEqual([])

  await cluster.remove('second')
  await cluster.patch('beater', { spec: { runStrategy: 'Halted' } })
  await cluster.sees('beater', 'is Stopped', (vm) => vm.status?.phase === 'Stopped')
  await server.kill()
  const { beats } = await diskBeats(file)
  expect(brokenBeats(beats, cluster.told(uid))).toBeUndefined()
})

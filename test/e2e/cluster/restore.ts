import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { restoreSnapshot } from '../../fakes/etcd-server.ts'
import { processOf, uidOf } from '../lab.ts'
import type { Host } from './lab.ts'
import { beating, manual, small } from './machines.ts'
import { cluster } from './shared.ts'

// As docs/runbook.md says it where the data of etcd are lost.

const snapshot = () => join(cluster.dir, 'snapshot.db')
/** The process of each machine when the servers stop, as its host knows it. */
const processes = new Map<string, ReturnType<typeof processOf>>()
/** The same QEMUs as the machine knows them. */
let qemus: readonly string[]
/** The machine that is younger than the snapshot. */
let young: string

async function stopServers(): Promise<void> {
  for (const host of cluster.hosts) host.signal('SIGTERM', 'server')
  for (const host of cluster.hosts)
    await cluster.until(`the server of ${host.name} is gone`, () => host.processes('server').length === 0)
}

const live = () => cluster.qemus().map(({ pid, startTime }) => `${pid} ${startTime}`)
const untouched = () => expect(live()).toEqual(expect.arrayContaining([...qemus]))

async function runAsBefore(...names: readonly string[]): Promise<void> {
  for (const name of names) expect(processOf(await cluster.running(name))).toEqual(processes.get(name))
}

test('etcd is saved, and goes on: one machine comes, one goes, one is changed', async () => {
  for (const manifest of [beating('a'), small('b'), manual('c'), small('gone')]) {
    await cluster.create(manifest)
    await cluster.running(String((manifest['metadata'] as { name: string }).name))
  }
  await cluster.etcd.members[0]?.ctl('snapshot', 'save', snapshot())
  await cluster.create(small('young'))
  young = uidOf(await cluster.running('young'))
  await cluster.patch('b', { metadata: { labels: { after: 'the-snapshot' } } })
  await cluster.remove('gone')
  await cluster.until('it is gone', async () => (await cluster.vms()).length === 4)
  for (const vm of await cluster.vms()) processes.set(vm.metadata.name, processOf(vm))
  await cluster.until('its QEMU is gone', () => live().length === processes.size)
  qemus = live()
})

test('every member loses its data and is restored: guests and guards go on, and no server starts on it unasked', async () => {
  await stopServers()
  await cluster.etcd.kill()
  for (const { args } of cluster.etcd.members) {
    const data = args[args.indexOf('--data-dir') + 1] ?? ''
    await rename(data, `${data}.lost`)
    await restoreSnapshot(snapshot(), args, ['--initial-cluster-token', 'restored'])
  }
  await cluster.etcd.start()
  await cluster.etcd.serving()
  const refuses = async (host: Host) => {
    await host.serve()
    await cluster.until(`the server of ${host.name} says why not`, () =>
      host.lastWords(4_000).includes('--accept-store-reset'),
    )
    await cluster.until(`the server of ${host.name} ends`, () => host.processes('server').length === 0)
  }
  await Promise.all(cluster.hosts.map(refuses))
  untouched()
})

test('told to, servers take it as it is, without leading: what it knows is as it was, what it does not know is an orphan', async () => {
  for (const host of cluster.hosts) await host.serve(['--accept-store-reset', '--roles', 'api,agent'])
  await cluster.ready(...cluster.hosts)
  await runAsBefore('a', 'b', 'c')
  expect((await cluster.vm('b')).metadata.labels).toBeUndefined()
  const [host] = cluster.hosts
  await cluster.until('the young one is listed as an orphan', async () => {
    const { stdout } = await host!.cli('orphans')
    return stdout.includes(young)
  })
  untouched()
})

test('an orphan is adopted, servers lead again, and all runs that the store declares', async () => {
  const [host] = cluster.hosts
  expect(await host!.cli('adopt', young)).toMatchObject({ code: 0 })
  await runAsBefore('young')
  await stopServers()
  for (const one of cluster.hosts) await one.serve()
  await cluster.ready(...cluster.hosts)
  await cluster.running('gone')
  await cluster.watched()
  await runAsBefore(...processes.keys())
  untouched()
  await cluster.beats(uidOf(await cluster.vm('a')), 2)
  await cluster.checkHalted('a')
})

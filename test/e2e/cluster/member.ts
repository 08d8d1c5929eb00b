import { rm } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { Member } from '../../../src/drill/cluster/etcd.ts'
import type { Host } from './lab.ts'
import { small } from './machines.ts'
import { cluster } from './shared.ts'

// As docs/runbook.md says it where etcd has lost a member, with the mistake that it warns of made first.

/** The QEMUs of the machines, none of which may be touched. */
let qemus: readonly string[]
const live = () =>
  cluster
    .qemus()
    .map(({ pid, startTime }) => `${pid} ${startTime}`)
    .sort()

const optionOf = ({ args }: Member, flag: string) => args[args.indexOf(flag) + 1] ?? ''
const members = () => cluster.etcd.members as readonly [Member, ...Member[]]

async function loseDisk(member: Member): Promise<void> {
  await member.kill()
  await rm(optionOf(member, '--data-dir'), { recursive: true })
}

/** Ends the guard of a host, and waits until another one holds the lease. */
async function anotherGuard(host: Host): Promise<void> {
  const renewedAt = async () => (await cluster.hostLease(host)).spec.renewTime
  const pids = host.processes('guard').map(({ pid }) => pid)
  host.signal('SIGKILL', 'guard')
  await cluster.until('another guard runs', () =>
    host.processes('guard').some(({ pid }) => !pids.includes(pid)),
  )
  const last = await renewedAt()
  await cluster.until(`the guard of ${host.name} renews`, async () => (await renewedAt()) !== last)
}

async function anotherServer(host: Host): Promise<void> {
  host.signal('SIGKILL', 'server')
  await cluster.until(`the server of ${host.name} is gone`, () => host.processes('server').length === 0)
  await host.serve()
  await cluster.ready(host)
}

test('a member that lost its disk is started as a cluster of its own: no server or guard that starts takes it for the store', async () => {
  for (const name of ['a', 'b', 'c']) await cluster.create(small(name))
  const placed = await Promise.all(['a', 'b', 'c'].map((name) => cluster.running(name)))
  expect(new Set(placed.map(({ status }) => status?.hostName)).size).toBe(3)
  qemus = live()
  const [lost] = members()
  await loseDisk(lost)
  const alone = `${optionOf(lost, '--name')}=${optionOf(lost, '--initial-advertise-peer-urls')}`
  await lost.start(['--initial-cluster', alone])
  await lost.serving()
  // Each draws by lot which member it asks first.
  for (let i = 0; i < 3; i += 1) await Promise.all(cluster.hosts.map(anotherGuard))
  await Promise.all(cluster.hosts.map(anotherServer))
  expect(await lost.ctl('get', '', '--prefix', '--keys-only')).toBe('')
  expect(live()).toEqual(qemus)
})

test('it is replaced by an empty one, as an etcd that has lost a member wants it', async () => {
  const [lost, other] = members() as readonly [Member, Member]
  await loseDisk(lost)
  const name = optionOf(lost, '--name')
  const list = await other.ctl('member', 'list')
  const [id = ''] =
    list
      .split('\n')
      .find((line) => line.includes(` ${name},`))
      ?.split(',') ?? []
  await other.ctl('member', 'remove', id)
  const peer = optionOf(lost, '--initial-advertise-peer-urls')
  await other.ctl('member', 'add', name, `--peer-urls=${peer}`)
  await lost.start(['--initial-cluster-state', 'existing'])
  await lost.serving()
  await cluster.watched()
  await cluster.create(small('next'))
  await cluster.running('next')
  expect(live()).toEqual(expect.arrayContaining([...qemus]))
})

import { expect, test } from 'vitest'
import { processOf, uidOf } from '../lab.ts'
import { beating, manual, small } from './machines.ts'
import { cluster } from './shared.ts'

const names = ['a', 'b', 'c', 'd', 'e', 'f']

async function hostsOf(some: readonly string[]): Promise<string[]> {
  const vms = await Promise.all(some.map((name) => cluster.running(name)))
  return vms.map((vm) => vm.status?.hostName ?? '')
}

test('machines are spread over the hosts, and each runs where its status says', async () => {
  for (const name of names) await cluster.create(small(name))
  const on = Map.groupBy(await hostsOf(names), (host) => host)
  expect([...on.values()].map((some) => some.length)).toEqual([2, 2, 2])
  for (const name of names) {
    const vm = await cluster.vm(name)
    const uids = cluster
      .host(vm.status?.hostName)
      .processes('qemu')
      .map(({ argv }) => argv.join(' '))
    expect(uids.filter((argv) => argv.includes(uidOf(vm)))).toHaveLength(1)
  }
})

test('machines that keep apart do, and one for which no host is left waits and says why', async () => {
  const apart = [{ labels: { app: 'db' } }]
  const db = (name: string) => {
    const manifest = manual(name, { affinity: { apart } })
    return { ...manifest, metadata: { name, labels: { app: 'db' } } }
  }
  const three = ['db-1', 'db-2', 'db-3']
  for (const name of three) await cluster.create(db(name))
  expect((await hostsOf(three)).sort()).toEqual(['h1', 'h2', 'h3'])
  await cluster.create(db('db-4'))
  const { status } = await cluster.sees(
    'db-4',
    'is Unschedulable',
    (vm) => vm.status?.reason === 'Unschedulable',
  )
  expect(status?.phase).toBe('Pending')
  for (const host of ['h1', 'h2', 'h3']) expect(status?.message).toContain(host)
  await cluster.remove('db-1')
  await cluster.running('db-4')
  for (const name of ['db-2', 'db-3', 'db-4']) await cluster.remove(name)
})

test('a cordoned host gets no machine until it is uncordoned', async () => {
  const [one] = cluster.hosts
  expect(await one?.cli('cordon', 'h1')).toMatchObject({ code: 0 })
  const more = ['g', 'h', 'i']
  for (const name of more) await cluster.create(small(name))
  expect(await hostsOf(more)).not.toContain('h1')
  expect(await one?.cli('uncordon', 'h1')).toMatchObject({ code: 0 })
  const last = ['j', 'k', 'l']
  for (const name of last) await cluster.create(small(name))
  expect(await hostsOf(last)).toContain('h1')
  for (const name of [...more, ...last]) await cluster.remove(name)
})

test('a drained host stops its machines gracefully and they run on others, with what they wrote', async () => {
  await cluster.create(beating('beater'))
  const before = await cluster.running('beater')
  const uid = uidOf(before)
  await cluster.beats(uid, 2)
  const from = cluster.host(before.status?.hostName)
  const [other] = cluster.others(from)
  const drained = await other?.cli('drain', from.name, '--timeout', '80s')
  expect(drained).toMatchObject({ code: 0 })
  const after = await cluster.running('beater', cluster.others(from))
  expect(processOf(after).launchId).not.toBe(processOf(before).launchId)
  await cluster.until('no QEMU is left on it', () => from.processes('qemu').length === 0)
  expect(await hostsOf(names)).not.toContain(from.name)
  await cluster.beats(uid, 1)
  expect(cluster.boots(uid)).toBe(2)
  await cluster.checkHalted('beater')
  expect(await other?.cli('uncordon', from.name)).toMatchObject({ code: 0 })
})

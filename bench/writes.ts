import { setTimeout as pause } from 'node:timers/promises'
import { hostLeaseName, leaderLease } from '../src/resources/host-lease.ts'
import type { VirtualMachine } from '../src/resources/vm.ts'
import { EtcdLab } from '../test/fakes/etcd-server.ts'
import { Server, tiny, vmsPath } from './lab.ts'
import { type Change, isLease, Revisions } from './revisions.ts'
import type { Figure } from './stats.ts'

const names = ['a', 'b', 'c'] as const
const machines = 12
const minuteMs = 60_000
const deadlineMs = 90_000
/** What is written once after machines have started is written by then. */
const settleMs = 15_000

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`${what}: not after ${deadlineMs} ms`)
    await pause(200)
  }
}

/** Resolves when nothing but leases was written for a while. */
async function settled(revisions: Revisions): Promise<void> {
  let last = performance.now()
  const stop = revisions.onChange((change) => {
    if (!isLease(change)) last = performance.now()
  })
  await until('only leases are written', async () => performance.now() - last > settleMs)
  stop()
}

/** @param total revisions of etcd, of which each of the changes is one */
function figures(changes: readonly Change[], total: number, took: number): Figure[] {
  const seconds = took / 1000
  const count = (part: (key: string) => boolean) => changes.filter(({ key }) => part(key)).length
  const own = count((key) => names.some((name) => key.endsWith(`/${hostLeaseName(name)}`)))
  const leader = count((key) => key.endsWith(`/${leaderLease}`))
  const ofVms = count((key) => key.includes('/virtualmachines/'))
  const rate = (writes: number) => (writes / seconds / names.length).toFixed(2)
  const where = `${names.length} hosts with ${machines} running machines, real etcd, one minute`
  const parts = `leases ${own}, the leader's ${leader}, others ${total - own - leader - ofVms}`
  return [
    {
      what: `${where}: writes per host and second`,
      value: `${rate(total)} (${total} in ${Math.round(seconds)} s: ${parts}), ${rate(own)} without the leader's`,
      goal: '≤ 0.5',
    },
    { what: `${where}: writes of machines`, value: `${ofVms}`, goal: '0' },
  ]
}

/** What real servers and guards with real QEMUs write while nothing happens, by etcd's own count. */
export async function writes(): Promise<Figure[]> {
  const etcd = await EtcdLab.start()
  const store = ['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(',')]
  const peers = ['--peer-listen', '127.0.0.1:0', '--fencing', 'guard']
  const flags = (name: string) => [...store, ...peers, '--host-name', name]
  const servers = await Promise.all(names.map((name) => Server.make({ flags: flags(name) })))
  const revisions = await Revisions.open(etcd.endpoints)
  try {
    for (const server of servers) await server.start()
    const client = servers[0]?.client()
    if (!client) throw new Error('no server')
    for (let i = 0; i < machines; i += 1) await client.json('POST', vmsPath, { body: tiny(`m${i}`) })
    await until('all machines run', async () => {
      const { items } = await client.json<{ items: VirtualMachine[] }>('GET', vmsPath)
      return items.length === machines && items.every(({ status }) => status?.phase === 'Running')
    })
    client.close()
    await settled(revisions)
    const from = await revisions.now()
    const began = performance.now()
    await pause(minuteMs)
    const to = await revisions.now()
    const took = performance.now() - began
    // The watch shows the last of them a moment later.
    await pause(1_000)
    const changes = revisions.after(from).filter(({ revision }) => revision <= to)
    for (const { key } of changes.filter((change) => !isLease(change)).slice(0, 20))
      process.stderr.write(`written: ${key}\n`)
    return figures(changes, to - from, took)
  } finally {
    for (const server of servers) await server.close()
    await revisions.close()
    await etcd.close()
  }
}

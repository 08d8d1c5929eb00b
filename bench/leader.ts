import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { sleep, systemClock } from '../src/lib/clock.ts'
import { hostLeaseName, leaseAnnotations, systemNamespace } from '../src/resources/host-lease.ts'
import { Host } from '../src/resources/kinds.ts'
import { VirtualMachine } from '../src/resources/vm.ts'
import { defaultTerms, LeaseContender } from '../src/runtime/lease.ts'
import { openEtcd } from '../src/store/etcd.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import type { ObjectStore } from '../src/store/objects.ts'
import { EtcdLab } from '../test/fakes/etcd-server.ts'
import { addHost, addMachine, addWaiting, each, hosts, many } from './cluster.ts'
import { packed, Server, vmsPath } from './lab.ts'
import { type Change, isLease, isTerm, Revisions } from './revisions.ts'
import { type Figure, median, ms, repeat } from './stats.ts'

const restarts = 3
/** Machines that are made while nobody leads: once they have a host the leader has seen all there is. */
const waiting = 100
/** So long without a write, but for renewals, is quiet: nothing that a leader does waits longer. */
const quietMs = 5_000
const deadlineMs = 60_000

const name = (index: number) => `h${String(index).padStart(3, '0')}`

/** Each host's guard: renews its lease until the signal is aborted. */
async function renew(objects: ObjectStore, index: number, signal: AbortSignal): Promise<void> {
  const members = Array.from({ length: hosts }, (_, i) => name(i))
  const facts = leaseAnnotations({
    ...{ deadlineMs: defaultTerms.deadlineMs, stopMs: 2_500, selfFence: 'guard', members },
    ...{ agent: 'alive', bootId: 'boot', peer: '127.0.0.1:9' },
  })
  const contender = new LeaseContender({
    ...{ objects, clock: systemClock, identity: name(index), terms: defaultTerms, facts: () => facts },
    ref: { namespace: systemNamespace, name: hostLeaseName(name(index)) },
    own: { mayReturn: async () => 0 },
  })
  await sleep(systemClock, (index * defaultTerms.renewMs) / hosts, signal).catch(() => {})
  while (!signal.aborted) {
    // As a guard does: without an answer it tries again soon.
    const written = await contender.attempt().catch(() => undefined)
    await sleep(systemClock, written ? defaultTerms.renewMs : 500, signal).catch(() => {})
  }
}

async function fill(objects: ObjectStore): Promise<void> {
  await many(hosts, (i) => addHost(objects, name(i)))
  await many(hosts * each, (i) => addMachine(objects, i, name(i % hosts)))
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`the leader has not come to rest after ${deadlineMs} ms`)
    await pause(200)
  }
}

/** Resolves when nothing but leases was written for a while. */
async function quiet(revisions: Revisions): Promise<void> {
  let last = performance.now()
  const stop = revisions.onChange((change) => {
    if (!isLease(change)) last = change.at
  })
  await until(async () => performance.now() - last > quietMs)
  stop()
}

/** Those that the restart of a leader did not need: all but leases, its term, and one placement and one Event for each machine. */
function needless(changes: readonly Change[], expected: ReadonlySet<string>): readonly Change[] {
  const seen = new Set<string>()
  return changes.filter((change) => {
    const { key } = change
    if (isLease(change)) return false
    const machine = /^\/core\/events\/default\/(m\d+)\.[0-9a-f]+$/.exec(key)?.[1]
    const wanted = isTerm(change) || expected.has(key) || expected.has(vmKey(machine ?? ''))
    if (!wanted || seen.has(key)) return true
    seen.add(machine === undefined ? key : `event of ${machine}`)
    return false
  })
}

const vmKey = (machine: string) => `/plasmavmc.io/virtualmachines/default/${machine}`

interface Lab {
  readonly objects: ObjectStore
  readonly server: Server
  readonly revisions: Revisions
}

/** @returns ms from the start of the process until every machine has a host */
async function restart({ objects, server, revisions }: Lab, round: number, extra: Change[]): Promise<number> {
  await server.stop(round % 2 ? 'SIGTERM' : 'SIGKILL')
  // Of a service each, and of none that is there.
  const made = Array.from({ length: waiting }, (_, i) => hosts * each + (round * waiting + i) * 10)
  await many(waiting, (i) => addWaiting(objects, made[i] ?? 0, '1Gi'))
  const expected = new Set(made.map((index) => vmKey(`m${index}`)))
  const left = new Set(expected)
  const from = await revisions.now()
  const all = Promise.withResolvers<number>()
  const stop = revisions.onChange(({ key, revision, at }) => {
    if (revision > from && left.delete(key) && left.size === 0) all.resolve(at)
  })
  const late = setTimeout(() => all.reject(new Error(`not converged after ${deadlineMs} ms`)), deadlineMs)
  const began = performance.now()
  await server.start()
  const took = (await all.promise) - began
  clearTimeout(late)
  stop()
  await quiet(revisions)
  const { items } = await objects.list(VirtualMachine)
  const homeless = items.filter(({ status }) => status?.hostName === undefined).length
  if (homeless > 0) throw new Error(`${homeless} machines have no host`)
  extra.push(...needless(revisions.after(from), expected))
  await many(waiting, (i) => objects.delete(VirtualMachine, { namespace: 'default', name: `m${made[i]}` }))
  return took
}

/** Of /proc/PID/status, MB (a million bytes). @param field VmRSS, or VmHWM: the most it ever was */
function memory(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  return (Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1]) * 1024) / 1e6
}

/** A real server that leads, over a real etcd, with a hundred simulated hosts of a hundred machines each. */
export async function leader(): Promise<Figure[]> {
  const etcd = await EtcdLab.start({ onDisk: true })
  const kv = await openEtcd({ endpoints: etcd.endpoints })
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const revisions = await Revisions.open(etcd.endpoints)
  const store = ['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(',')]
  const flags = [...store, '--roles', 'api,controller', '--host-name', name(0)]
  const server = await Server.make({ command: packed(), flags })
  const stopping = new AbortController()
  let guards: Promise<unknown> = Promise.resolve()
  try {
    await fill(objects)
    guards = Promise.all(Array.from({ length: hosts }, (_, i) => renew(objects, i, stopping.signal)))
    await server.start()
    await until(async () => {
      // What it says of each host for the first time.
      const { items } = await objects.list(Host)
      return items.every(({ status }) => status?.conditions.some(({ type }) => type === 'Fenced'))
    })
    await quiet(revisions)
    const extra: Change[] = []
    const lab = { objects, server, revisions }
    const times = await repeat(restarts, (round) => restart(lab, round, extra))
    const pid = server.child?.pid ?? 0
    const converged = memory(pid, 'VmRSS')
    const client = server.client()
    await repeat(3, async () => (await client.text('GET', vmsPath)).length)
    client.close()
    const listed = memory(pid, 'VmRSS')
    const most = memory(pid, 'VmHWM')
    const size = `${hosts} simulated hosts with ${each} machines each, real etcd`
    for (const { key, revision } of extra.slice(0, 20)) process.stderr.write(`needless: ${revision} ${key}\n`)
    return [
      {
        what: `${size}: restart of the leader → ${waiting} new machines placed`,
        value: `p50 ${ms(median(times))}, max ${ms(Math.max(...times))}`,
        goal: '≤ 10 s',
      },
      { what: `${size}: needless writes of ${restarts} restarts`, value: `${extra.length}`, goal: '0' },
      {
        what: `${size}: memory of the leader`,
        value: `${Math.round(converged)} MB, ${Math.round(listed)} MB after 3 lists of all over its API, at most ${Math.round(most)} MB`,
        goal: '≤ 400 MB',
      },
    ]
  } finally {
    stopping.abort()
    await guards.catch(() => {})
    await server.close()
    await revisions.close()
    await kv.close()
    await etcd.close()
  }
}

import { uidOf } from '../lab.ts'
import type { Host } from './lab.ts'
import { beating } from './machines.ts'
import { cluster } from './shared.ts'

export const beater = 'beater'

interface Found {
  readonly uid: string
  /** Where it runs. */
  readonly host: Host
  /** In how many boots it has written so far. */
  readonly boots: number
}

/**
 * The machine `beater` on a host that does not lead, its guest writing; made where there is none. The boot of a guest is
 * what a scenario spends most time on, so one guest goes through all that happens to hosts.
 */
export async function beaterOnFollower(): Promise<Found> {
  const known = (await cluster.vms()).some(({ metadata }) => metadata.name === beater)
  if (!known) await cluster.createOn(await cluster.follower(), beating(beater))
  const vm = await cluster.running(beater)
  const [uid, host] = [uidOf(vm), cluster.host(vm.status?.hostName)]
  if ((await cluster.leader()) === host) await endTerm(host)
  await cluster.beats(uid, 1)
  return { uid, host, boots: cluster.boots(uid) }
}

/** Has another host lead than this one, whose machines run on. */
async function endTerm(host: Host): Promise<void> {
  host.signal('SIGKILL', 'server')
  await cluster.until(`another leads than ${host.name}`, async () => (await cluster.leader()) !== host)
  await host.serve()
  await cluster.ready(host)
}

/** Has no machine placed on the leader meanwhile: what fails over is to be on a host that does not lead afterwards. */
export async function sparingLeader<T>(act: () => Promise<T>): Promise<T> {
  const { name } = await cluster.leader()
  await cluster.patchHost(name, { spec: { unschedulable: true } })
  const result = await act()
  await cluster.patchHost(name, { spec: { unschedulable: false } })
  return result
}

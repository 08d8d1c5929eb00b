import type { Host as HostObject } from '../../resources/host.ts'
import { holderHost, leaderLease, leaseFacts } from '../../resources/host-lease.ts'
import { expect, type Measured, type Mode } from '../mode.ts'
import type { NamespaceHost } from './host.ts'
import {
  anew,
  beatsOf,
  bootedAgain,
  type ClusterMode,
  isRunning,
  now,
  onCluster,
  type Scene,
  untouched,
} from './play.ts'

/** In seconds of the guest: longer than any lease. */
const outageBeats = 15

interface Left {
  readonly fail: (scene: Scene) => Promise<void>
  /** The host is back at once, and may be given its machine anew. */
  readonly back?: boolean
  /** What has to be so in the end. */
  readonly after?: (scene: Scene) => Promise<void>
}

/** A host that is lost to its machine. */
function left({ fail, back = false, after }: Left) {
  return async (scene: Scene): Promise<Measured> => {
    const { host, vm, sees, tell } = scene
    const { boots } = beatsOf(scene)
    const began = now()
    await fail(scene)
    tell('the others notice')
    const detected = await sees('the machine is not Running', began, (one) => !isRunning(one))
    tell('the others start its machine')
    const moved = (one: typeof vm) => anew(vm)(one) && (back || one.status?.hostName !== host.name)
    const recovered = await sees('the machine runs again', began, moved)
    await bootedAgain(scene, boots)
    await after?.(scene)
    return { detectedMs: detected.at - began, recoveredMs: recovered.at - began }
  }
}

async function reboot({ host }: Scene): Promise<void> {
  await host.powerOff()
  await host.boot()
  await host.serve()
}

type ConditionOf = NonNullable<HostObject['status']>['conditions'][number]

/** Waits until a condition of the host is so, as the others say. */
async function untilHost({ lab, host }: Scene, wanted: (condition: ConditionOf) => boolean): Promise<void> {
  await lab.until(`${host.name} is as wanted`, async () => {
    const objects = await lab.hostObjects(lab.others(host))
    const found = objects.find(({ metadata }) => metadata.name === host.name)
    return found?.status?.conditions.some(wanted)
  })
}

/** It comes back, and starts nothing that runs elsewhere. */
async function rejoined(scene: Scene): Promise<void> {
  const { lab, host, vm, tell } = scene
  tell('the host comes back')
  await lab.network.heal(host.name)
  await untilHost(scene, ({ type, status }) => type === 'Ready' && status === 'True')
  const ours = host.processes('qemu').filter(({ argv }) => argv.includes(vm.metadata.uid ?? ''))
  expect(ours.length === 0, 'the host that came back runs the machine as well')
}

/** A host is lost, and its machine stays where it is until what the runbook tells an operator to do is done. */
function byHand(waits: (scene: Scene) => Promise<void>) {
  return async (scene: Scene): Promise<Measured> => {
    const { lab, host, vm, sees, tell } = scene
    const { boots } = beatsOf(scene)
    const began = now()
    await host.powerOff()
    tell('the others notice')
    const detected = await sees('the machine is Unknown', began, ({ status }) => status?.phase === 'Unknown')
    await waits(scene)
    tell('a person says that it is off')
    const [other] = lab.others(host)
    const said = await other!.cli('host', 'fence', host.name, '--confirm-off', '--reason', 'drill')
    expect(said.code === 0, `host fence failed: ${said.stderr}`)
    await sees('the machine runs on another host', began, anew(vm))
    await bootedAgain(scene, boots)
    return { detectedMs: detected.at - began }
  }
}

const notFenced = (scene: Scene) => untilHost(scene, ({ reason }) => reason === 'NoFencing')

/** Its host is fenced, and it waits nevertheless; it is then told to fail over. */
async function waitsForHost(scene: Scene): Promise<void> {
  await untilHost(scene, ({ type, status }) => type === 'Fenced' && status === 'True')
  const { status } = await scene.lab.vm(scene.vm.metadata.name)
  expect(status?.hostName === scene.host.name, 'a Manual machine was moved')
  await scene.lab.patch(scene.vm.metadata.name, { spec: { recovery: { onHostLoss: 'Failover' } } })
}

const agentOf = async ({ lab, host }: Scene) => leaseFacts(await lab.hostLease(host)).agent

async function agentDead(scene: Scene): Promise<Measured> {
  const { lab, host, tell } = scene
  const began = now()
  host.signal('SIGKILL', 'server')
  tell('its guard notices')
  await lab.until('its lease says so', async () => (await agentOf(scene)) === 'silent')
  const detectedMs = now() - began
  tell('the next server starts')
  const back = now()
  await host.serve()
  await lab.until('its lease says that it is back', async () => (await agentOf(scene)) === 'alive')
  await lab.ready(host)
  await untouched(scene)
  const recoveredMs = now() - back
  return { detectedMs, recoveredMs }
}

const renewedAt = async ({ lab, host }: Scene) => (await lab.hostLease(host)).spec.renewTime

async function guardDead(scene: Scene): Promise<Measured> {
  const { lab, host, tell } = scene
  const dead = host.processes('guard').map(({ pid }) => pid)
  const began = now()
  expect(host.signal('SIGKILL', 'guard') > 0, 'no guard runs')
  const last = await renewedAt(scene)
  tell('its agent notices')
  await lab.until('another guard runs', () => host.processes('guard').some(({ pid }) => !dead.includes(pid)))
  const detectedMs = now() - began
  await lab.until('it renews the lease', async () => (await renewedAt(scene)) !== last)
  const recoveredMs = now() - began
  await untouched(scene)
  return { detectedMs, recoveredMs }
}

/** Writes by way of a host's server. @throws where it is not accepted */
async function written({ lab }: Scene, via: NamespaceHost): Promise<true> {
  const metadata = { annotations: { drill: String(now()) } }
  await lab.patchHost(via.name, { metadata }, [via])
  return true
}

async function etcdMinority(scene: Scene): Promise<Measured> {
  const { lab, tell } = scene
  const leads = await Promise.all(lab.etcd.members.map((member) => member.leads()))
  const leader = lab.etcd.members[leads.indexOf(true)]
  expect(leader !== undefined, 'no member of etcd leads')
  const began = now()
  await leader?.kill()
  tell('the other members elect a leader')
  for (const host of lab.hosts)
    await lab.until(`${host.name} can write to the store`, () => written(scene, host))
  const recoveredMs = now() - began
  await untouched(scene)
  return { recoveredMs }
}

/** Asks for the hosts, and waits for as long as the answer takes. */
const saysNoStore = (lab: Scene['lab'], host: NamespaceHost): Promise<boolean> =>
  lab.hostObjects([host], 30_000).then(
    () => false,
    (error: { readonly code?: unknown }) => error.code === 'ServiceUnavailable',
  )

async function etcdLost(scene: Scene): Promise<Measured> {
  const { lab, vm, tell } = scene
  const began = now()
  await lab.etcd.kill()
  for (const host of lab.hosts)
    await lab.until(`${host.name} says that it has no store`, () => saysNoStore(lab, host))
  const detectedMs = now() - began
  tell('no etcd for longer than a lease')
  const { beats } = beatsOf(scene)
  await lab.until('guests run on', () => beatsOf(scene).beats >= beats + outageBeats)
  expect(lab.qemus(vm.metadata.uid).length === 1, 'the guest was stopped')
  tell('etcd starts')
  const back = now()
  await lab.etcd.start()
  for (const host of lab.hosts)
    await lab.until(`${host.name} can write to the store`, () => written(scene, host))
  await lab.ready(...lab.hosts)
  await untouched(scene)
  return { detectedMs, recoveredMs: now() - back }
}

async function leaderLost(scene: Scene): Promise<Measured> {
  const { lab, tell } = scene
  const leader = await lab.leader()
  const term = (await lab.lease(leaderLease)).spec.leaseTransitions
  const began = now()
  leader.signal('SIGKILL', 'server')
  tell('another is elected')
  await lab.until('another leads', async () => {
    const { spec } = await lab.lease(leaderLease)
    return holderHost(spec.holderIdentity) !== leader.name && spec.leaseTransitions !== term
  })
  const detectedMs = now() - began
  const apart = await lab.create({
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata: { name: 'next' } },
    spec: { memory: '32Mi', runStrategy: 'Halted' },
  })
  const placed = ({ status }: typeof apart) => status?.hostName !== undefined
  await lab.sees('next', 'is placed by the new leader', placed)
  const recoveredMs = now() - began
  await untouched(scene)
  return { detectedMs, recoveredMs }
}

const all: readonly ClusterMode[] = [
  {
    name: 'host lost',
    recovery: 'runs elsewhere, on stored evidence',
    manual: 'none; local disks: bring it back',
    play: left({ fail: ({ host }) => host.powerOff() }),
  },
  {
    name: 'host lost, no fencing',
    recovery: 'none: it may run',
    manual: '`host fence NAME --confirm-off`',
    play: byHand(notFenced),
    fencing: { mode: 'none' },
  },
  {
    name: 'host lost, Manual machine',
    recovery: 'none: it waits for its host',
    manual: 'bring it back, or fence it',
    play: byHand(waitsForHost),
    onHostLoss: 'Manual',
  },
  {
    name: 'network partition',
    recovery: 'it stops, and runs elsewhere',
    manual: 'mend the network',
    play: left({ fail: ({ lab, host }) => lab.network.cut(host.name), after: rejoined }),
  },
  {
    name: 'host reboot',
    recovery: 'as host lost, however fast it boots',
    manual: 'none where servers start at boot',
    play: left({ fail: reboot, back: true }),
  },
  {
    name: 'agent dead',
    recovery: 'guests run on; adopted (from the next start)',
    manual: 'none under systemd',
    play: agentDead,
  },
  {
    name: 'guard dead',
    recovery: 'the agent starts another; guests run on',
    manual: 'none',
    play: guardDead,
  },
  {
    name: 'etcd minority lost',
    recovery: 'the others elect a leader and go on',
    manual: 'replace the member',
    play: etcdMinority,
  },
  {
    name: 'etcd all lost',
    recovery: 'guests run on, none moves (from its return)',
    manual: 'start or restore etcd',
    play: etcdLost,
  },
  {
    name: 'leader lost',
    recovery: 'another leads, and places machines',
    manual: 'none under systemd',
    play: leaderLost,
  },
]

export const clusterModes: readonly Mode[] = all.map(onCluster)

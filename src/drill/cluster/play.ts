import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock } from '../../lib/clock.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Seen } from '../lab.ts'
import { expect, type Measured, type Mode, playIn, type Stage, type Texts } from '../mode.ts'
import { startTimeOf } from '../qemus.ts'
import { Follower } from './follow.ts'
import type { NamespaceHost } from './host.ts'
import { ClusterLab, type Json, openLab } from './lab.ts'

const name = 'drill'

export const now = (): number => systemClock.elapsed()
export const isRunning = ({ status }: VirtualMachine): boolean => status?.phase === 'Running'
const launchOf = ({ status }: VirtualMachine) => status?.process?.launchId

/** A lab with a machine `drill` that runs on a host which does not lead. */
export interface Scene {
  readonly lab: ClusterLab
  readonly host: NamespaceHost
  readonly vm: VirtualMachine
  readonly tell: (what: string) => void
  /** Waits until the machine was as wanted at some time after another. @throws Error naming `what` */
  readonly sees: (what: string, after: number, wanted: (vm: VirtualMachine) => boolean) => Promise<Seen>
}

type OnHostLoss = VirtualMachine['spec']['recovery']['onHostLoss']

/** A guest that writes to its disk on the shared directory each second, and then says so. */
function manifest(guestDir: string, onHostLoss: OnHostLoss): Json {
  const file = (word: string) => join(guestDir, word)
  const cmdline = 'console=ttyS0 quiet plasmavmc.do=beat'
  return {
    ...{
      apiVersion: 'plasmavmc.io/v1alpha1',
      kind: 'VirtualMachine',
      metadata: { name, namespace: 'default' },
    },
    spec: {
      ...{ memory: '128Mi', runStrategy: 'Always', terminationGracePeriodSeconds: 10 },
      kernel: { image: file('vmlinuz'), initrd: file('initrd.img'), cmdline },
      disks: [{ name: 'data', size: '16Mi', format: 'raw', pool: 'shared' }],
      recovery: { onHostLoss },
    },
  }
}

/** How often the guest said that it wrote to its disk, and in how many boots. */
export function beatsOf({ lab, vm }: Pick<Scene, 'lab' | 'vm'>): {
  readonly boots: number
  readonly beats: number
} {
  const said = [...lab.console(vm.metadata.uid ?? '').matchAll(/PlasmaVMC guest beat (\d+) \d+\r?\n/g)]
  return { boots: Math.max(0, ...said.map(([, boot]) => Number(boot))), beats: said.length }
}

/** Waits until a later boot of the guest than `boots` writes to its disk. */
export async function bootedAgain(scene: Scene, boots: number): Promise<void> {
  scene.tell('its guest boots')
  await scene.lab.until('the guest writes to its disk again', () => beatsOf(scene).boots > boots)
}

/** Running under another launch than before. */
export const anew = (before: VirtualMachine) => (vm: VirtualMachine) =>
  isRunning(vm) && launchOf(vm) !== undefined && launchOf(vm) !== launchOf(before)

/** Waits until it is Running. @throws where it is not the process that it was */
export async function untouched({ lab, vm }: Scene): Promise<void> {
  const after = await lab.running(name)
  const why = 'its host stops it where its lease is not renewed in time, as on a machine that is too busy'
  expect(launchOf(after) === launchOf(vm), `the machine was started anew; ${why}`)
  const { pid, startTime } = vm.status?.process ?? { pid: 0, startTime: 0 }
  const [qemu] = lab.qemus(vm.metadata.uid)
  // Its host knows it by another pid, of its own namespace; the start time is the same everywhere.
  expect(qemu !== undefined && startTimeOf(qemu.pid) === startTime, `the process ${pid} is another one`)
}

async function prepare(
  lab: ClusterLab,
  { guestDir, tell }: Stage,
  onHostLoss: OnHostLoss,
): Promise<Omit<Scene, 'sees'>> {
  tell('three hosts watch each other')
  await lab.watched()
  const host = await lab.follower()
  tell('a machine starts')
  const [vm] = await lab.createOn(host, manifest(guestDir, onHostLoss))
  tell('its guest boots')
  const scene = { lab, host, vm: vm!, tell }
  await lab.until('the guest writes to its disk', () => beatsOf(scene).boots > 0)
  return scene
}

export interface ClusterMode extends Texts {
  readonly name: string
  readonly play: (scene: Scene) => Promise<Measured>
  /** How hosts are fenced; by their guards where absent. */
  readonly fencing?: Json
  /** What becomes of the machine when its host is lost; `Failover` where absent. */
  readonly onHostLoss?: OnHostLoss
}

/** A way to fail that is played on three hosts. */
export function onCluster({
  name: mode,
  play,
  fencing,
  onHostLoss = 'Failover',
  ...texts
}: ClusterMode): Mode {
  const playOn = async (stage: Stage) => {
    stage.tell('three hosts and etcd start')
    await access(join(stage.guestDir, 'vmlinuz'))
    const { program, folder, signal } = stage
    const options = { program, folder, signal, ...(fencing && { fencing }) }
    const lab = await openLab((network) => new ClusterLab(network, options))
    return playIn(lab, stage, async () => {
      const scene = await prepare(lab, stage, onHostLoss)
      const follower = new Follower(name, lab.others(scene.host))
      const sees: Scene['sees'] = (what, after, wanted) =>
        lab.until(what, () => follower.first(after, wanted))
      try {
        return await play({ ...scene, sees })
      } finally {
        follower.close()
      }
    })
  }
  return { ...texts, group: 'cluster', name: mode, play: playOn }
}

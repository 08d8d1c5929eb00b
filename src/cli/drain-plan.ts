import { plan, type World } from '../controllers/placement/plan.ts'
import { localDisks } from '../resources/disk-reach.ts'
import type { Host } from '../resources/kinds.ts'
import type { VirtualMachine } from '../resources/vm.ts'

/**
 * What becomes of a machine when its host is drained. move: it is asked to go. stop: it is shut down where it is. rest:
 * it is down already and stays where its disks are. leave: it is being deleted. stay: it goes on running here.
 */
export interface DrainItem {
  readonly vm: VirtualMachine
  readonly fate: 'move' | 'stop' | 'rest' | 'leave' | 'stay'
  /** For stop, rest and stay. */
  readonly why: string
  /** Whether --force would shut it down. */
  readonly forceable: boolean
}

/** Whether it has no QEMU, and would not get one by itself. */
export function isDown({ spec, status }: VirtualMachine): boolean {
  if (status?.process ?? status?.launch) return false
  return spec.runStrategy === 'Halted' || status?.power?.desired === 'Down'
}

/** The world as it would be once these machines had left their host and nothing new came to it. */
function without(world: World, name: string, leaving: ReadonlySet<VirtualMachine>): World {
  const machines = world.machines.map((vm) => {
    if (!leaving.has(vm) || !vm.status) return vm
    const { hostName: _h, placementEpoch: _e, process: _p, launch: _l, ...status } = vm.status
    return { ...vm, status }
  })
  const hosts = world.hosts.map((host): Host => {
    return host.metadata.name === name ? { ...host, spec: { ...host.spec, unschedulable: true } } : host
  })
  return { ...world, machines, hosts }
}

/**
 * What draining a host means for each machine on it. A machine is asked to go only where some other host would take it,
 * those before it counted: one that is shut down here and fits nowhere else would be down for nothing.
 */
export function drainPlan(world: World, name: string, force: boolean): readonly DrainItem[] {
  const here = world.machines.filter(({ status }) => status?.hostName === name)
  const alone = world.hosts.every(({ metadata }) => metadata.name === name)
  const items = here.map((vm): DrainItem => {
    const local = localDisks(vm, world.pools)
    const [first] = local
    if (vm.metadata.deletionTimestamp !== undefined) return { vm, fate: 'leave', why: '', forceable: false }
    const why = first
      ? `${local.length === 1 ? `disk ${first.name} is` : `disks ${local.map((d) => d.name).join(', ')} are`} on this host only (${first.field})`
      : 'there is no other host'
    if (!first && !alone) return { vm, fate: 'move', why: '', forceable: false }
    if (isDown(vm)) return { vm, fate: 'rest', why, forceable: false }
    return { vm, fate: force ? 'stop' : 'stay', why, forceable: !force }
  })
  const leaving = new Set(items.filter(({ fate }) => fate === 'move').map(({ vm }) => vm))
  const { unplaced } = plan(without(world, name, leaving))
  const nowhere = new Map(unplaced.map(({ vm, message }) => [vm.metadata.uid, message]))
  return items.map((item): DrainItem => {
    const message = nowhere.get(item.vm.metadata.uid)
    if (item.fate !== 'move' || message === undefined) return item
    const why = `no other host takes it: ${message}`
    return { ...item, fate: isDown(item.vm) ? 'rest' : 'stay', why }
  })
}

/** How far a machine is: over (well or not), or what it does now. */
export type DrainState =
  | { readonly over: 'left' | 'stopped' | 'deleted' | 'nowhere'; readonly text: string }
  | { readonly over?: never; readonly text: string; readonly ask: boolean }

/** Judges a machine that is to move or to be shut down, as it is now; undefined: it is no more. */
export function drainState(
  { fate }: Pick<DrainItem, 'fate'>,
  name: string,
  vm: VirtualMachine | undefined,
): DrainState {
  if (vm === undefined) return { over: 'deleted', text: 'is deleted' }
  const { status } = vm
  const doing = `${status?.phase ?? 'not looked at yet'}${status?.message ? `: ${status.message}` : ''}`
  if (status?.hostName !== undefined && status.hostName !== name)
    return { over: 'left', text: `moved to ${status.hostName}` }
  if (status?.hostName === undefined) {
    const scheduled = status?.conditions.find(({ type }) => type === 'Scheduled')
    if (scheduled?.status === 'False')
      return { over: 'nowhere', text: `left, and waits for a host: ${scheduled.message}` }
    return { text: 'left, and waits for a host', ask: false }
  }
  if (fate === 'stop' && isDown(vm)) return { over: 'stopped', text: 'is shut down' }
  const waiting = status.request ?? status.stop ?? vm.metadata.deletionTimestamp
  const told = fate === 'stop' && (vm.spec.runStrategy === 'Halted' || status.power?.desired === 'Down')
  return { text: doing, ask: waiting === undefined && !told }
}

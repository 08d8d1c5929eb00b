import type { FenceEvidence } from '../resources/fence-evidence.ts'
import type { Host } from '../resources/host.ts'
import { hostOfLease } from '../resources/host-lease.ts'
import type { Lease } from '../resources/kinds.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import type { World } from './world.ts'

type Line = (value: never) => string | undefined

function machineLine({ metadata, status }: VirtualMachine): string {
  const { phase = 'new', reason, hostName, placementEpoch } = status ?? {}
  const where = hostName === undefined ? '' : ` on ${hostName}`
  const epoch = placementEpoch === undefined ? '' : ` (epoch ${placementEpoch})`
  return `${metadata.namespace}/${metadata.name}: ${phase}${reason && reason !== phase ? `, ${reason}` : ''}${where}${epoch}`
}

function hostLine({ metadata, spec, status }: Host): string {
  // That its guard holds the lease is said by the lease.
  const told = (status?.conditions ?? []).filter(
    ({ type, status: is }) => type !== 'Guarded' || is !== 'True',
  )
  const conditions = told.map(
    ({ type, status: is, reason }) =>
      `${type}=${is}${reason === type || reason === '' ? '' : ` (${reason})`}`,
  )
  const cordoned = spec.unschedulable ? ['cordoned'] : []
  return `${metadata.name}: ${[...cordoned, ...conditions].join(', ') || 'registered'}`
}

function leaseLine({ metadata, spec }: Lease): string {
  const { holderIdentity = 'nobody', leaseTransitions = 0 } = spec
  const host = hostOfLease(metadata.name)
  const what = host === undefined ? 'leader' : `lease of ${host}`
  return `${what}: ${holderIdentity} (epoch ${leaseTransitions})`
}

function evidenceLine({ metadata, spec }: FenceEvidence): string {
  const votes = spec.votes?.length ? `, agreed by ${[...spec.votes].sort().join(', ')}` : ''
  return `evidence ${metadata.name}: ${spec.proof}${votes}`
}

const lines: Readonly<Record<string, Line>> = {
  virtualmachines: machineLine,
  hosts: hostLine,
  leases: leaseLine,
  fenceevidences: evidenceLine,
}

/** Tells of every change in the store that a person would look at: once each, not each renewal. */
export function chronicle(world: World): void {
  const last = new Map<string, string>()
  world.store.onWrite((event) => {
    const line = lines[event.key.split('/')[2] ?? '']
    if (!line) return
    const text = event.type === 'put' ? line(JSON.parse(event.value) as never) : 'gone'
    const name = event.key.split('/').slice(3).join('/')
    if (text === undefined || last.get(event.key) === text) return
    last.set(event.key, text)
    world.tell(event.type === 'put' ? text : `${name}: gone`)
  })
}

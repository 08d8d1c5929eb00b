import type { Log } from '../../lib/log.ts'
import { apiVersionOf } from '../../resources/define.ts'
import { Host, hostSpec } from '../../resources/host.ts'
import { ApiError, isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'

/** Annotation with the random id of the data folder whose server goes by a Host's name. */
export const hostIdAnnotation = 'plasmavmc.io/host-id'
/** Label that every host has; `spread` counts by it unless told otherwise. */
export const hostnameLabel = 'kubernetes.io/hostname'
export const archLabel = 'kubernetes.io/arch'
export const acceleratorLabel = 'plasmavmc.io/accelerator'

export interface Registration {
  readonly objects: ObjectStore
  readonly hostName: string
  /** What an agent says of its host in labels; those of others are left as they are. */
  readonly labels: Readonly<Record<string, string>>
  /** Absent on a store that no other host has. */
  readonly hostId?: string
  /** Written at the first registration only: from then on it is the user's. */
  readonly fencing?: Host['spec']['fencing']['mode']
  readonly log: Log
}

/** Labels of an agent's own for its host. */
export function agentLabels(
  hostName: string,
  facts: { readonly arch: string; readonly accelerator: string },
): Record<string, string> {
  return {
    [hostnameLabel]: hostName,
    [archLabel]: facts.arch,
    [acceleratorLabel]: facts.accelerator,
  }
}

/** The Host by that name as it is. */
export async function findHost({
  objects,
  hostName,
}: Pick<Registration, 'objects' | 'hostName'>): Promise<Host | undefined> {
  try {
    return await objects.get(Host, { name: hostName })
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

async function create({ objects, hostName, labels, hostId, fencing }: Registration): Promise<Host> {
  const spec = hostSpec.parse(fencing === undefined ? {} : { fencing: { mode: fencing } })
  const annotations = hostId === undefined ? {} : { annotations: { [hostIdAnnotation]: hostId } }
  try {
    return await objects.create(Host, {
      apiVersion: apiVersionOf(Host),
      kind: 'Host',
      metadata: { name: hostName, labels: { ...labels }, ...annotations },
      spec,
    })
  } catch (error) {
    if (error instanceof ApiError && error.reason === 'AlreadyExists')
      return objects.get(Host, { name: hostName })
    throw error
  }
}

/**
 * This host's object: made where there is none, with the agent's labels brought up to date. Writes only changes.
 * @throws ApiError `Conflict` where somebody changed it meanwhile
 */
export async function registered(registration: Registration): Promise<Host> {
  const host = (await findHost(registration)) ?? (await create(registration))
  const has = host.metadata.labels ?? {}
  const stale = Object.entries(registration.labels).some(([key, value]) => has[key] !== value)
  if (!stale) return host
  const metadata = { ...host.metadata, labels: { ...has, ...registration.labels } }
  return registration.objects.update(Host, { ...host, metadata })
}

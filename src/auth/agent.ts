import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { FenceEvidence } from '../resources/fence-evidence.ts'
import { hostLeaseName, systemNamespace } from '../resources/host-lease.ts'
import { Event, Host, Lease, StoragePool } from '../resources/kinds.ts'
import { same } from '../resources/parse.ts'
import type { PolicyRule } from '../resources/rbac.ts'
import { VirtualMachine } from '../resources/vm.ts'
import type { Identity } from './identity.ts'

/** The group of agents, and how the user of a host's agent is called: as Kubernetes' system:nodes and system:node:NAME. */
export const hostsGroup = 'system:hosts'
export const hostUserPrefix = 'system:host:'

/** The host whose agent somebody is; undefined where they are none. */
export function agentHost({ name, groups }: Identity): string | undefined {
  const host = name.startsWith(hostUserPrefix) ? name.slice(hostUserPrefix.length) : ''
  return host !== '' && groups.includes(hostsGroup) ? host : undefined
}

/** What the agent of a host may do, in a namespace where one is named; {@link agentRefusal} says with which objects. */
export function agentRules(host: string, namespace?: string): readonly PolicyRule[] {
  const on = (
    { group, plural }: ResourceDefinition,
    verbs: string[],
    subresource = '',
    name?: string,
  ): PolicyRule => ({
    ...{ verbs, apiGroups: [group], resources: [`${plural}${subresource}`] },
    ...(name !== undefined && { resourceNames: [name] }),
  })
  const lease = namespace === systemNamespace
  return [
    on(VirtualMachine, ['get', 'list', 'watch', 'update']),
    on(VirtualMachine, ['update'], '/status'),
    on(Host, ['get', 'list', 'watch', 'create']),
    on(Host, ['update'], '', host),
    on(Host, ['update'], '/status', host),
    on(StoragePool, ['get', 'list', 'watch']),
    on(StoragePool, ['update'], '/status'),
    on(FenceEvidence, ['get', 'list', 'watch']),
    on(Event, ['get', 'create', 'update']),
    ...(lease
      ? [on(Lease, ['get', 'list', 'watch', 'create']), on(Lease, ['update'], '', hostLeaseName(host))]
      : []),
  ]
}

/** A write of an agent; `before` is absent where the object is made, `after` where it is deleted. */
export interface AgentWrite {
  readonly kind: ResourceDefinition
  readonly before?: KubeObject
  readonly after?: KubeObject
  readonly status: boolean
}

const hostOf = (object: KubeObject | undefined) => (object as VirtualMachine | undefined)?.status?.hostName

/**
 * Why the agent of a host may not make this write; undefined where it may: its own Host, its own lease, and machines that
 * are its host's, or nobody's, and are so afterwards, too. Of a machine's spec it changes nothing.
 */
export function agentRefusal(host: string, { kind, before, after, status }: AgentWrite): string | undefined {
  const name = (after ?? before)?.metadata.name
  if (is(kind, Host)) return name === host ? undefined : `the agent of ${host} writes no other Host`
  if (is(kind, Lease))
    return name === hostLeaseName(host) ? undefined : `the agent of ${host} holds no other lease`
  if (!is(kind, VirtualMachine)) return undefined
  if (!before || !after) return `the agent of ${host} makes and deletes no machines`
  const mine = (object: KubeObject) => [undefined, host].includes(hostOf(object))
  if (!mine(before)) return `it is on the host ${hostOf(before)}, not on ${host}`
  if (!mine(after)) return `the agent of ${host} gives it to no other host`
  const { finalizers: _b, ...meta } = userMeta(before)
  const { finalizers: _a, ...next } = userMeta(after)
  return status || (same(before.spec, after.spec) && same(meta, next))
    ? undefined
    : `the agent of ${host} changes nothing of it but finalizers and status`
}

function is<T extends KubeObject>(kind: ResourceDefinition, other: ResourceDefinition<T>): boolean {
  return kind === (other as unknown as ResourceDefinition)
}

/** What people write into metadata. */
function userMeta({ metadata: { labels, annotations, ownerReferences, finalizers } }: KubeObject) {
  return { labels, annotations, ownerReferences, finalizers }
}

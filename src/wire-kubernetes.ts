import { existsSync } from 'node:fs'
import type { Config } from './config.ts'
import { hostIdAnnotation } from './controllers/host/register.ts'
import type { AskVotes } from './controllers/hosts/types.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import { messageOf, PlasmaError } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import type { Host } from './resources/host.ts'
import { Host as HostKind } from './resources/kinds.ts'
import { VirtualMachine } from './resources/vm.ts'
import { isReason } from './store/errors.ts'
import { KubeHttp } from './store/kube-http.ts'
import { KubeObjects } from './store/kube-objects.ts'
import type { ObjectStore } from './store/objects.ts'

/** Where Kubernetes puts the credential of a pod. */
const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount/token'

export interface KubernetesStore {
  readonly objects: KubeObjects
  /** `host:port` of the API server. */
  readonly address: string
  readonly close: () => Promise<void>
}

/**
 * The store that a kubeconfig, or a pod's service account, names; nothing is sent yet.
 * @param times `callMs`: longest time of a call
 * @throws PlasmaError `BadConfig` that names the file and what is wrong with it
 */
export async function openKubernetes(
  config: Pick<Config, 'kubeconfig'>,
  log: Log,
  times: { readonly callMs?: number } = {},
  clock: Clock = systemClock,
): Promise<KubernetesStore> {
  const { kubeconfig } = config
  if (kubeconfig === undefined && !existsSync(serviceAccount))
    throw new PlasmaError(
      'BadConfig',
      '--store: kubernetes needs --kubeconfig: this is no pod of Kubernetes',
      {
        hint: `there is no ${serviceAccount}; 'plasmavmc kubeconfig' on the server writes a kubeconfig`,
      },
    )
  // Loaded where it is needed: no other store has to wait for it.
  const { openKubeAccess } = await import('./store/kube-access.ts')
  const access = openKubeAccess(kubeconfig)
  const http = new KubeHttp({ access, clock, log: log.child({ part: 'kubernetes' }), ...times })
  return {
    objects: new KubeObjects({ http, clock }),
    address: access.server.host,
    close: async () => http.close(),
  }
}

/**
 * Asks for one machine, to say at the start what is wrong with the API server or with our rights.
 * @throws PlasmaError `StoreUnusable` with what to do
 */
export async function requireKinds({ objects, address }: KubernetesStore): Promise<void> {
  try {
    await objects.list(VirtualMachine, { limit: 1 })
  } catch (error) {
    const hint = isReason(error, 'NotFound')
      ? 'apply crds/ of this version to it'
      : isReason(error, 'Unauthorized') || isReason(error, 'Forbidden')
        ? 'give this credential the rights of deploy/kubernetes/base/rbac.yaml'
        : 'machines that run here run on'
    throw new PlasmaError('StoreUnusable', `--store kubernetes: ${address}: ${messageOf(error)}`, {
      hint,
      cause: error,
    })
  }
}

/** Where guards can't be asked nobody agrees: what can't be shown to be safe is left to a person. */
export const noVotes: AskVotes = async (_lease, { members }) => ({
  consents: [],
  refusals: members.map((host) => ({
    host,
    why: 'with --store kubernetes guards are not asked; once the host is known to be off, say so: plasmavmc host fence',
  })),
})

/**
 * Refuses to join a server that runs machines itself: one with a store of its own takes every machine for its own.
 * @throws PlasmaError `OneHostServer`
 */
export async function requireHostsApart(objects: ObjectStore, hostName: string): Promise<void> {
  const { items } = await objects.list(HostKind)
  const alone = items.find((host) => host.metadata.name !== hostName && isAlone(host))
  if (!alone) return
  const { name } = alone.metadata
  throw new PlasmaError(
    'OneHostServer',
    `--kubeconfig: host ${name} is of a server that runs all its machines itself; no other host may join it`,
    {
      hint: `start that server with --roles api,controller, and an agent on ${name} if it is to run machines; if ${name} is gone for good: plasmavmc delete host ${name}`,
    },
  )
}

/** A host that was seen, and never said whose it is: only where it is alone it does not. */
function isAlone({ metadata, status }: Host): boolean {
  return status?.bootId !== undefined && metadata.annotations?.[hostIdAnnotation] === undefined
}

/**
 * The other way round: a server that would run all machines itself is not started on a store with hosts that joined.
 * @throws PlasmaError `HostsJoined`
 */
export async function requireNoOtherHosts(objects: ObjectStore, hostName: string): Promise<void> {
  const { items } = await objects.list(HostKind)
  const joined = items.filter(({ metadata }) => metadata.annotations?.[hostIdAnnotation] !== undefined)
  if (joined.length === 0) return
  const names = joined.map(({ metadata }) => metadata.name).slice(0, 5)
  throw new PlasmaError(
    'HostsJoined',
    `--roles: ${names.join(', ')} joined this store, and may run machines that ${hostName} would start a second time`,
    {
      hint: 'start this server with --roles api,controller; to go back to one host, stop the machines there, end the agents and delete those Hosts first',
    },
  )
}

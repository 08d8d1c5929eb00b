import { randomUUID } from 'node:crypto'
import type { KubeObject } from '../../resources/define.ts'
import { Host } from '../../resources/host.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { ApiError } from '../../store/errors.ts'
import { notFound } from '../../store/object-errors.ts'
import type { Call } from '../call.ts'
import type { ServerDeps } from '../deps.ts'
import { handle } from '../handlers.ts'
import type { ResourcePath } from '../path.ts'
import { vmPath } from './admission.ts'
import { VmIds, type VmRef } from './ids.ts'
import { defaultGrpcLimits, type GrpcLimits } from './limits.ts'
import {
  type ById,
  type CreateVmRequest,
  duplicatesOf,
  type ListVmsRequest,
  manifestOf,
  namespaceOf,
  scopeOf,
} from './requests.ts'
import type { VmCall } from './vm-call.ts'
import { type VmMessage, vmMessage } from './vm-message.ts'

/** Most machines of a page. */
const maxPage = 1_000

/** Whether MigrateVm can move a machine. */
export const migrates = false

const noMigration = 'this version of PlasmaVMC has no live migration'

export interface VmServiceDeps extends Pick<ServerDeps, 'objects' | 'objectsFor' | 'clock'> {
  /** Name of the Host of this server. */
  readonly hostName: string
  readonly grpcLimits?: Pick<GrpcLimits, 'answerBytes'>
}

/** What the calls of VmService do, over the same handlers as the REST API. Each rejects with ApiErrors. */
export class VmService {
  readonly #deps: VmServiceDeps
  readonly #ids: VmIds

  constructor(deps: VmServiceDeps) {
    this.#deps = deps
    this.#ids = new VmIds(deps.objects)
  }

  async createVm(request: CreateVmRequest, call: VmCall): Promise<VmMessage> {
    const path = vmPath({ namespace: namespaceOf(request) ?? 'default' })
    call.allow('POST', path)
    const duplicates = () => duplicatesOf(request)
    return this.#shown(await this.#handle(call, 'POST', path, manifestOf(request), { duplicates }))
  }

  async getVm({ id }: ById, call: VmCall): Promise<VmMessage> {
    const { ref, uid } = await this.#locate(id, call, 'GET')
    const vm = await this.#deps.objects.get(VirtualMachine, ref)
    if (uid !== undefined && vm.metadata.uid !== uid) throw notFound(VirtualMachine, uid)
    return this.#shown(vm)
  }

  async listVms(request: ListVmsRequest, call: VmCall): Promise<object> {
    const scope = scopeOf(request)
    call.allow('GET', vmPath(scope.namespace === undefined ? {} : { namespace: scope.namespace }))
    const { page_size: size, page_token: token } = request
    const { answerBytes } = this.#deps.grpcLimits ?? defaultGrpcLimits
    // Of JSON, which is longer than what is sent.
    const maxBytes = answerBytes * 0.75
    const from = token === '' ? {} : { continue: token }
    for (let limit = size === 0 ? maxPage : Math.min(size, maxPage); ; limit = Math.ceil(limit / 2)) {
      const page = await this.#deps.objects.list(VirtualMachine, { ...scope, ...from, limit })
      const vms = page.items.map(vmMessage)
      // Machines with many labels: half as many of them, again and again.
      if (limit > 1 && Buffer.byteLength(JSON.stringify(vms)) > maxBytes) continue
      const { continue: next = '', resourceVersion } = page
      return { vms, next_page_token: next, resource_version: resourceVersion }
    }
  }

  startVm({ id }: ById, call: VmCall): Promise<VmMessage> {
    return this.#act(id, 'start', call)
  }

  stopVm({ id }: ById, call: VmCall): Promise<VmMessage> {
    return this.#act(id, 'stop', call)
  }

  async deleteVm({ id }: ById, call: VmCall): Promise<object> {
    const { ref, uid } = await this.#locate(id, call, 'DELETE')
    const body = uid === undefined ? {} : { preconditions: { uid } }
    const answer = await this.#handle(call, 'DELETE', vmPath(ref), body)
    // A Status once it is gone, the object while something holds it.
    const { kind, metadata, details } = answer as Partial<KubeObject> & { details?: { uid?: string } }
    return { id: details?.uid ?? metadata?.uid ?? '', gone: kind === 'Status' }
  }

  async migrateVm(_request: ById): Promise<never> {
    const hint = 'plasmavmc drain restarts the machines of a host on others'
    throw new ApiError('MethodNotAllowed', noMigration, {}, { hint })
  }

  async getCapabilities(_request: object, call: VmCall): Promise<object> {
    const { objects, hostName } = this.#deps
    call.allow('GET', { kind: Host, name: hostName })
    const { status } = await objects.get(Host, { name: hostName })
    const capabilities = status?.capabilities ?? []
    return {
      host: hostName,
      ...liveMigration(capabilities),
      qemu_capabilities: capabilities,
      qemu_version: status?.qemuVersion ?? '',
      accelerator: status?.accelerator ?? '',
    }
  }

  async #act(id: string, verb: 'start' | 'stop', call: VmCall): Promise<VmMessage> {
    const { ref, uid } = await this.#locate(id, call, 'POST', verb)
    const path = vmPath({ ...ref, subresource: verb })
    // Its name may be another machine's by now.
    const only = uid === undefined ? {} : { uid }
    return this.#shown(await this.#handle(call, 'POST', path, undefined, only))
  }

  #shown(object: unknown): VmMessage {
    this.#ids.note(object as KubeObject)
    return vmMessage(object as KubeObject)
  }

  /**
   * The machine that an id names, once the caller may do it there. Whoever may not see all machines hears the same of a
   * uid that is unknown and of one that is out of bounds. @throws ApiError Forbidden, NotFound, BadRequest
   */
  async #locate(
    id: string,
    call: VmCall,
    method: 'GET' | 'POST' | 'DELETE',
    subresource?: string,
  ): Promise<{ readonly ref: VmRef; readonly uid?: string }> {
    const verb = subresource === undefined ? {} : { subresource }
    const found = await this.#ids.find(id)
    const unplaced = vmPath({ name: id, ...verb })
    if (!found) {
      call.allow(method, unplaced)
      throw notFound(VirtualMachine, id)
    }
    call.allow(method, vmPath({ ...found.ref, ...verb }), found.uid === undefined ? undefined : unplaced)
    return found
  }

  /** Does what a request of the REST API would. @returns the body of its answer */
  async #handle(
    { identity, userAgent }: VmCall,
    method: string,
    path: ResourcePath,
    body: unknown,
    { duplicates = () => [], ...more }: Partial<Pick<Call, 'duplicates' | 'uid'>> = {},
  ): Promise<unknown> {
    const { clock } = this.#deps
    const objects = this.#deps.objectsFor?.(identity) ?? this.#deps.objects
    // Nobody would see a warning.
    const query = new URLSearchParams({ fieldValidation: 'Strict' })
    const contentType = 'application/json'
    const form = 'json' as const
    const asked = { method, path, query, body, duplicates, contentType, form, userAgent, ...more }
    return (await handle(asked, { objects, clock, newId: randomUUID })).body
  }
}

/** Whether a host's machines can be moved while they run, and why not. */
export function liveMigration(capabilities: readonly string[], ours: boolean = migrates) {
  const able = capabilities.includes('live-migration')
  const why = able ? noMigration : 'the QEMU of this host has no live migration, or was not asked yet'
  return {
    live_migration: able && ours,
    live_migration_reason: able && ours ? '' : why,
  }
}

import { rfc3339 } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { Namespace } from '../resources/kinds.ts'
import { toTable } from '../resources/table.ts'
import { VirtualMachine, vmStatusOf } from '../resources/vm.ts'
import { actionOf, requestAction } from '../resources/vm-actions.ts'
import { ApiError, isReason } from '../store/errors.ts'
import type { ListOptions, ObjectList, WriteOptions } from '../store/objects.ts'
import {
  type Answer,
  type Call,
  type HandlerDeps,
  methodNotAllowed,
  objectOf,
  refOf,
  unknownFields,
  write,
} from './call.ts'
import { remove, removeCollection } from './delete-call.ts'
import { tracking } from './field-manager.ts'
import { listBody } from './list-text.ts'
import { patch, writeTries } from './patch-call.ts'
import { flag, isDryRun, numberOf, parameter, parseFieldSelector } from './query.ts'

/** Does one call on a resource; watches are not calls. @throws ApiError */
export async function handle(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { method, path } = call
  const { kind, name, subresource } = path
  const action =
    subresource !== undefined && Object.hasOwn(actionOf, subresource) ? actionOf[subresource] : undefined
  if (action && kind === (VirtualMachine as ResourceDefinition)) {
    if (method === 'POST') return act(call, action, deps)
    throw methodNotAllowed()
  }
  if (subresource !== undefined && !(subresource === 'status' && kind.hasStatus))
    throw new ApiError('NotFound', `there is no ${kind.plural}/${subresource}`)
  if (name === undefined) {
    if (method === 'GET') return list(call, deps)
    if (method === 'POST') return create(call, deps)
    if (method === 'DELETE') return removeCollection(call, deps)
  } else if (method === 'GET') return get(call, deps)
  else if (method === 'PUT') return put(call, deps)
  else if (method === 'PATCH') return patch(call, deps)
  else if (method === 'DELETE' && subresource === undefined) return remove(call, deps)
  throw methodNotAllowed()
}

function shown(call: Call, objects: readonly KubeObject[], deps: HandlerDeps, metadata = {}): unknown {
  return toTable(call.path.kind, objects, { now: deps.clock.now(), metadata })
}

async function get(call: Call, deps: HandlerDeps): Promise<Answer> {
  const object = await deps.objects.get(call.path.kind, refOf(call))
  return { code: 200, body: call.table ? shown(call, [object], deps) : object }
}

async function list(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { path, query } = call
  const { kind } = path
  const labelSelector = parameter(query, 'labelSelector')
  const limit = numberOf(query, 'limit')
  const token = parameter(query, 'continue')
  const options: ListOptions = {
    ...(path.namespace !== undefined && { namespace: path.namespace }),
    ...(labelSelector && { labelSelector }),
    ...(limit !== undefined && { limit }),
    ...(token && { continue: token }),
  }
  const fieldSelector = parameter(query, 'fieldSelector')
  const metaOf = (page: ObjectList<unknown>) => ({
    resourceVersion: page.resourceVersion,
    ...(page.continue !== undefined && { continue: page.continue }),
  })
  if (!fieldSelector && !call.table) {
    const page = await deps.objects.listText(kind, options)
    const head = JSON.stringify({
      apiVersion: apiVersionOf(kind),
      kind: `${kind.kind}List`,
      metadata: metaOf(page),
    })
    return { code: 200, body: listBody(head, page.items) }
  }
  const page = await deps.objects.list(kind, options)
  const items = page.items.filter(parseFieldSelector(fieldSelector))
  if (call.table) return { code: 200, body: shown(call, items, deps, metaOf(page)) }
  return {
    code: 200,
    body: { apiVersion: apiVersionOf(kind), kind: `${kind.kind}List`, metadata: metaOf(page), items },
  }
}

async function create(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind, namespace } = call.path
  if (kind.namespaced && namespace === undefined)
    throw new ApiError('MethodNotAllowed', 'a namespaced object is created under its namespace')
  const object = objectOf(call, call.body)
  const warnings = unknownFields(call, object)
  if (namespace !== undefined) await deps.objects.get(Namespace, { name: namespace })
  const options: WriteOptions = {
    ...{ dryRun: isDryRun(call.query), restoreUid: flag(call.query, 'restoreUid') },
    managedFields: tracking(call, deps.clock),
  }
  return { code: 201, body: await deps.objects.create(kind, object, options), warnings }
}

async function put(call: Call, deps: HandlerDeps): Promise<Answer> {
  const object = objectOf(call, call.body)
  const warnings = unknownFields(call, object)
  return { code: 200, body: await write(call, object, deps), warnings }
}

async function act(
  call: Call,
  action: NonNullable<(typeof actionOf)[string]>,
  deps: HandlerDeps,
): Promise<Answer> {
  const options = { dryRun: isDryRun(call.query), managedFields: tracking(call, deps.clock) }
  for (let i = 1; ; i += 1) {
    const vm = await deps.objects.get(VirtualMachine, refOf(call))
    const decision = requestAction(vm, action, { id: deps.newId(), at: rfc3339(deps.clock.now()) })
    if ('refuse' in decision) {
      throw new ApiError(
        'Conflict',
        `can't ${call.path.subresource} ${vm.metadata.name}: ${decision.refuse}`,
        { group: call.path.kind.group, kind: call.path.kind.plural, name: vm.metadata.name },
      )
    }
    try {
      if ('spec' in decision) {
        const changed = { ...vm, spec: { ...vm.spec, ...decision.spec } }
        return { code: 202, body: await deps.objects.update(VirtualMachine, changed, options) }
      }
      const status = { ...vmStatusOf(vm), request: decision.request }
      return { code: 202, body: await deps.objects.updateStatus(VirtualMachine, { ...vm, status }, options) }
    } catch (error) {
      if (i >= writeTries || !isReason(error, 'Conflict')) throw error
    }
  }
}

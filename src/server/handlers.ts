import { rfc3339 } from '../lib/clock.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import { VirtualMachine, vmStatusOf } from '../resources/vm.ts'
import { actionOf, requestAction } from '../resources/vm-actions.ts'
import { ApiError, isReason } from '../store/errors.ts'
import { notFound } from '../store/object-errors.ts'
import type { WriteOptions } from '../store/objects.ts'
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
import { list } from './list-call.ts'
import { finalize, openNamespace } from './namespace-calls.ts'
import { patch, writeTries } from './patch-call.ts'
import { flag, isDryRun } from './query.ts'
import { shownOne, viewOf } from './show.ts'

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
  if (subresource === 'finalize' && kind.finalized) {
    if (method === 'PUT') return finalize(call, deps)
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

async function get(call: Call, deps: HandlerDeps): Promise<Answer> {
  const object = await deps.objects.get(call.path.kind, refOf(call))
  const view = viewOf({ kind: call.path.kind, form: call.form }, call.query, () => deps.clock.now())
  return { code: 200, body: shownOne(view, object) }
}

async function create(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind, namespace } = call.path
  if (kind.namespaced && namespace === undefined)
    throw new ApiError('MethodNotAllowed', 'a namespaced object is created under its namespace')
  const object = objectOf(call, call.body)
  const warnings = unknownFields(call, object)
  const options: WriteOptions = {
    ...{ dryRun: isDryRun(call.query), restoreUid: flag(call.query, 'restoreUid') },
    managedFields: tracking(call, deps.clock),
  }
  for (let i = 1; ; i += 1) {
    const { name } = object.metadata
    const within = namespace === undefined ? {} : { within: await openNamespace(namespace, kind, name, deps) }
    try {
      return { code: 201, body: await deps.objects.create(kind, object, { ...options, ...within }), warnings }
    } catch (error) {
      // The namespace was written to in between.
      if (i >= writeTries || !isReason(error, 'Conflict')) throw error
    }
  }
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
    // What is written below is written to this one alone, or not at all.
    if (call.uid !== undefined && vm.metadata.uid !== call.uid) throw notFound(VirtualMachine, call.uid)
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

import { type Clock, rfc3339 } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject } from '../resources/define.ts'
import { fieldTypeOf } from '../resources/merge/field-type.ts'
import { FieldError } from '../resources/merge/fields.ts'
import { type Author, afterUpdate, readManagers, writeManagers } from '../resources/merge/managers.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError } from '../store/errors.ts'
import type { WriteOptions } from '../store/objects.ts'
import type { Call } from './call.ts'
import { parameter } from './query.ts'

const maxLength = 128

/**
 * Who a write is by: `fieldManager`, or else the program's name in the User-Agent, as in Kubernetes. An apply has to
 * say it. @throws ApiError Invalid
 */
export function authorOf(call: Call, operation: Author['operation']): Author {
  const given = parameter(call.query, 'fieldManager') ?? ''
  if (given === '' && operation === 'Apply') throw badOption('Required value: is required for apply patch')
  if (given.length > maxLength) throw badOption(`Too long: may not be more than ${maxLength} bytes`)
  if (/[^\x20-\x7e\u00a0-\uffff]/.test(given))
    throw badOption('Invalid value: should only contain printable characters')
  const program = (call.userAgent ?? '').split('/')[0]?.slice(0, maxLength)
  const { kind, subresource } = call.path
  return {
    ...{ manager: given || program || 'unknown', operation, apiVersion: apiVersionOf(kind) },
    ...(subresource === 'status' && { subresource }),
  }
}

function badOption(message: string, field = 'fieldManager'): ApiError {
  const reason = message.startsWith('Required') ? 'FieldValueRequired' : 'FieldValueInvalid'
  return new ApiError('Invalid', `PatchOptions.meta.k8s.io "" is invalid: ${field}: ${message}`, {
    ...{ group: 'meta.k8s.io', kind: 'PatchOptions' },
    causes: [{ reason, field, message }],
  })
}

/** `force` is for applies. @throws ApiError Invalid */
export function refuseForce({ query }: Call): void {
  if (parameter(query, 'force'))
    throw badOption('Forbidden: may not be specified for non-apply patch', 'force')
}

/**
 * Keeps account of who owns what through a write that is no apply.
 * @param given `metadata.managedFields` of the object that is written: whoever changes them changes the account itself
 */
export function tracking(
  call: Call,
  clock: Clock,
  given?: unknown,
): NonNullable<WriteOptions['managedFields']> {
  const author = authorOf(call, 'Update')
  const type = fieldTypeOf(call.path.kind)
  const told = call.path.subresource === undefined ? toldManagers(call, given) : undefined
  return (before, next) => {
    const managers = told ?? managersOf(before)
    // What nobody keeps account of since it was made is kept account of from its first apply on.
    if (before && managers.length === 0) return []
    try {
      return writeManagers(
        afterUpdate(type, { before: before ?? {}, next, author, at: rfc3339(clock.now()) }, managers),
      )
    } catch (error) {
      // Lists that can't be told apart are for validation to refuse; the account stays as it was.
      if (error instanceof FieldError) return writeManagers(managers)
      throw error
    }
  }
}

/** What the stored account says; nothing where it can't be read. */
export function managersOf(object: KubeObject | undefined) {
  try {
    return readManagers(object?.metadata.managedFields)
  } catch {
    return []
  }
}

/**
 * The account as a client wants it: `[{}]` takes it away; an empty list, of clients that do not know it, is none.
 * @throws ApiError Invalid
 */
function toldManagers(call: Call, given: unknown) {
  if (!Array.isArray(given) || given.length === 0) return undefined
  const [first] = given
  if (given.length === 1 && isRecord(first) && Object.keys(first).length === 0) return []
  try {
    return readManagers(given)
  } catch (error) {
    const field = 'metadata.managedFields'
    const message = `Invalid value: ${error instanceof Error ? error.message : ''}`
    const { kind } = call.path
    throw new ApiError('Invalid', `${kind.kind} "${call.path.name ?? ''}" is invalid: ${field}: ${message}`, {
      ...{ group: kind.group, kind: kind.kind, name: call.path.name ?? '' },
      causes: [{ reason: 'FieldValueInvalid', field, message }],
    })
  }
}

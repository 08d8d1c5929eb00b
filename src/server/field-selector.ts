import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { ApiError } from '../store/errors.ts'
import { shown } from './status.ts'

export interface FieldSelector {
  readonly matches: (object: KubeObject) => boolean
  /** The one name that can match, where the selector names it. */
  readonly name?: string
}

interface Term {
  readonly field: string
  readonly value: string
  readonly equal: boolean
}

/** What every kind can be selected by. */
const common: readonly string[] = ['metadata.name', 'metadata.namespace']

/** Kubernetes' name of a field where it is not the path. */
const paths: Readonly<Record<string, string>> = { source: 'source.component' }

/**
 * A field selector, `metadata.name=web,status.phase!=Running`, in Kubernetes' grammar: `=`, `==` and `!=`, all terms must
 * hold, `\` before a comma, an equals sign or a backslash of a value. A field that is not there counts as empty.
 * Undefined where it selects everything.
 * @throws ApiError BadRequest for what can't be read, and for a field that objects of the kind can't be selected by
 */
export function parseFieldSelector(
  text: string | undefined,
  kind: ResourceDefinition,
): FieldSelector | undefined {
  const terms = partsOf(text ?? '')
    .filter((part) => part !== '')
    .map((part) => termOf(part, text ?? ''))
  if (terms.length === 0) return undefined
  for (const { field } of terms) {
    if (!common.includes(field) && !kind.selectable.includes(field))
      throw new ApiError('BadRequest', `field label not supported: ${field.slice(0, 100)}`)
  }
  const named = terms.find(({ field, equal }) => field === 'metadata.name' && equal)
  return {
    matches: (object) =>
      terms.every(({ field, value, equal }) => (valueAt(object, paths[field] ?? field) === value) === equal),
    ...(named && { name: named.value }),
  }
}

/** Split at the commas that no backslash is before. */
function partsOf(text: string): string[] {
  const parts = ['']
  for (const [piece] of text.matchAll(/\\.|[^\\]|\\$/gs)) {
    if (piece === ',') parts.push('')
    else parts[parts.length - 1] += piece
  }
  return parts
}

function termOf(part: string, whole: string): Term {
  const [, field = '', operator, value = ''] = /^([^=!]*)(!=|==|=)(.*)$/s.exec(part) ?? []
  if (operator === undefined)
    throw unreadable(`invalid selector: '${whole.slice(0, 100)}'; can't understand '${part.slice(0, 100)}'`)
  return { field, value: unescaped(value), equal: operator !== '!=' }
}

function unescaped(value: string): string {
  return value.replace(/\\(.?)|=/gs, (whole, next: string | undefined) => {
    if (next !== undefined && ['\\', ',', '='].includes(next)) return next
    const why =
      whole === '=' ? 'an equals sign needs a backslash before it' : 'a backslash goes before , = or \\'
    throw unreadable(`invalid value '${value.slice(0, 100)}': ${why}`)
  })
}

function unreadable(why: string): ApiError {
  return new ApiError('BadRequest', `fieldSelector: ${why}`)
}

function valueAt(object: unknown, path: string): string {
  let value: unknown = object
  for (const step of path.split('.')) value = (value as Record<string, unknown> | undefined)?.[step]
  return value === undefined || value === null ? '' : shown(value)
}

import { isRecord } from '../prune.ts'
import { type FieldSet, memberElement } from './field-set.ts'
import { type FieldType, memberType } from './field-type.ts'
import { itemsOf } from './fields.ts'

/**
 * What is there with what is applied put over it: objects member by member, lists of objects item by item, sets as
 * unions; of leaves the applied one counts (Kubernetes' "Server-Side Apply", merge strategy). Changes neither.
 * @throws FieldError for lists that can't be told apart
 */
export function merged(type: FieldType, live: unknown, applied: unknown, path = ''): unknown {
  if (applied === undefined) return live
  if (type.as === 'map' && isRecord(live) && isRecord(applied)) {
    const result: Record<string, unknown> = { ...live }
    for (const [name, value] of Object.entries(applied)) {
      const one = memberType(type, name)
      result[name] = one ? merged(one, live[name], value, `${path}.${name}`) : value
    }
    return result
  }
  if ((type.as === 'list' || type.as === 'set') && Array.isArray(live) && Array.isArray(applied))
    return mergedList(type, live, applied, path)
  return applied
}

/** The items of both. Those that are applied stand in their applied order; the others stay where they are among them. */
function mergedList(
  type: FieldType & { readonly as: 'list' | 'set' },
  live: readonly unknown[],
  applied: readonly unknown[],
  path: string,
): unknown[] {
  const [old, now] = [itemsOf(type, live, path), itemsOf(type, applied, path)]
  const result: unknown[] = []
  const waiting = [...now]
  const placed = new Set<string>()
  const placeUpTo = (last: string) => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [element, item] = next
      placed.add(element)
      result.push(type.as === 'list' ? merged(type.item, old.get(element), item, path) : item)
      if (element === last) return
    }
  }
  for (const [element, item] of old) {
    if (!now.has(element)) result.push(item)
    else if (!placed.has(element)) placeUpTo(element)
  }
  placeUpTo('')
  return result
}

/**
 * `value` without what its applier said before and says no more, unless somebody else owns it, too.
 * @param before fields that the applier owned
 * @param owned fields that anybody owns now, the applier by what is applied now
 */
export function pruned(type: FieldType, value: unknown, before: FieldSet, owned: FieldSet): unknown {
  if (before.empty) return value
  if (type.as === 'map' && isRecord(value)) {
    const kept = Object.entries(value).flatMap(([name, item]) => {
      const one = memberType(type, name)
      if (!one) return [[name, item] as const]
      const left = leftOf(one, item, memberElement(name), before, owned)
      return left === gone ? [] : [[name, left] as const]
    })
    return Object.fromEntries(kept)
  }
  if ((type.as === 'list' || type.as === 'set') && Array.isArray(value)) {
    const one: FieldType = type.as === 'list' ? type.item : { as: 'leaf' }
    return [...itemsOf(type, value, '')].flatMap(([element, item]) => {
      const left = leftOf(one, item, element, before, owned)
      if (left === gone) return []
      // An item that stays keeps what it is told apart by, whoever said it.
      const keys = type.as === 'list' && isRecord(item) ? type.keys.filter((key) => key in item) : []
      return [isRecord(left) ? { ...pick(item, keys), ...left } : left]
    })
  }
  return value
}

const gone = Symbol('gone')
const pick = (item: unknown, keys: readonly string[]) =>
  Object.fromEntries(keys.map((key) => [key, (item as Record<string, unknown>)[key]]))
const size = (value: unknown) =>
  Array.isArray(value) ? value.length : isRecord(value) ? Object.keys(value).length : 1

/** What is left of one member or item. */
function leftOf(type: FieldType, item: unknown, element: string, before: FieldSet, owned: FieldSet): unknown {
  if (!before.touches(element)) return item
  // An object that was empty when it was applied may hold by now what nobody owns.
  const whole = type.as === 'leaf' || !element.startsWith('f:') || size(item) === 0
  if (whole && before.members.has(element) && !owned.touches(element)) return gone
  const left = pruned(type, item, before.below(element), owned.below(element))
  // An object that had something, all of which is gone, was nothing but that.
  const emptied = size(left) === 0 && size(item) > 0
  return emptied && !owned.members.has(element) ? gone : left
}

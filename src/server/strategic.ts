import { isRecord } from '../resources/prune.ts'
import { ApiError } from '../store/errors.ts'
import { shown } from './status.ts'

/*
 * Strategic merge patches, which kubectl sends for Kubernetes' own kinds (Kubernetes' "Update API Objects in Place Using
 * kubectl patch", sig-api-machinery/strategic-merge-patch.md). `kubectl patch --local` does the same by Kubernetes' code.
 */

type Json = Readonly<Record<string, unknown>>

/** Lists that are merged, with the member that tells elements apart; '' for texts. All other lists are replaced. */
const merged: ReadonlyMap<string, string> = new Map([
  ['metadata.finalizers', ''],
  ['metadata.ownerReferences', 'uid'],
  ['status.conditions', 'type'],
])

const [orderOf, deleteFrom] = ['$setElementOrder/', '$deleteFromPrimitiveList/']
const isDirective = (name: string) =>
  name === '$patch' || name === '$retainKeys' || name.startsWith(orderOf) || name.startsWith(deleteFrom)

function bad(why: string): ApiError {
  return new ApiError('BadRequest', `the strategic merge patch is not valid: ${why}`)
}

/** The object with the patch in it. Changes neither. @throws ApiError BadRequest */
export function strategicPatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) throw bad('it must be an object')
  return mergeMap(isRecord(target) ? target : {}, patch, '')
}

function mergeMap(target: Json, patch: Json, path: string): Record<string, unknown> {
  const how = patch['$patch']
  if (how === 'delete') return {}
  if (how !== undefined && how !== 'replace') throw bad(`unknown patch type: ${shown(how).slice(0, 100)}`)
  const base = how === 'replace' ? {} : kept(target, patch)
  const result = new Map(Object.entries(base))
  for (const name of namesOf(patch)) {
    const at = path === '' ? name : `${path}.${name}`
    const value = patch[name]
    const key = merged.get(at)
    if (value === null) result.delete(name)
    else if (key !== undefined && (Array.isArray(value) || value === undefined)) {
      const list = mergeList({ key, at }, base[name], value, patch)
      if (list) result.set(name, list)
    } else if (isRecord(value)) result.set(name, mergeMap(isRecord(base[name]) ? base[name] : {}, value, at))
    else if (value !== undefined) result.set(name, value)
  }
  // A name like any other: it must not change a prototype.
  return Object.fromEntries(result)
}

/** What a patch is about: its members, and lists that it only puts in order or takes from. */
function namesOf(patch: Json): ReadonlySet<string> {
  const lists = Object.keys(patch).flatMap((name) =>
    [orderOf, deleteFrom]
      .filter((prefix) => name.startsWith(prefix))
      .map((prefix) => name.slice(prefix.length)),
  )
  return new Set([...Object.keys(patch).filter((name) => !isDirective(name)), ...lists])
}

/** What `$retainKeys` leaves of a map. */
function kept(target: Json, patch: Json): Json {
  const names = patch['$retainKeys']
  if (names === undefined) return target
  const given = Object.keys(patch).filter((name) => !isDirective(name))
  const keeps = new Set(Array.isArray(names) ? names : [])
  if (given.some((name) => !keeps.has(name)))
    throw bad('$retainKeys must list every member that the patch has')
  return Object.fromEntries(Object.entries(target).filter(([name]) => keeps.has(name)))
}

interface Place {
  readonly key: string
  readonly at: string
}

/** What tells an element from others. @throws ApiError BadRequest where it has no such thing */
function identity({ key, at }: Place, element: unknown): unknown {
  if (key === '' && typeof element === 'string') return element
  const value = key !== '' && isRecord(element) ? element[key] : undefined
  if (value !== undefined && value !== null) return value
  throw bad(key === '' ? `the elements of ${at} must be texts` : `each element of ${at} must have ${key}`)
}

function listOf(value: unknown, name: string): readonly unknown[] {
  if (value === undefined || value === null) return []
  if (Array.isArray(value)) return value
  throw bad(`${name} must be a list`)
}

/** @returns undefined where there is no list before nor after */
function mergeList(
  place: Place,
  before: unknown,
  given: readonly unknown[] | undefined,
  patch: Json,
): readonly unknown[] | undefined {
  const name = place.at.slice(place.at.lastIndexOf('.') + 1)
  const there = listOf(before, place.at)
  const idOf = (element: unknown) => identity(place, element)
  const asks = given ?? []
  const replaces = asks.some((one) => isRecord(one) && one['$patch'] === 'replace')
  const isOrder = (one: unknown) => isRecord(one) && one['$patch'] !== undefined
  const changes = asks.filter((one) => !isOrder(one))
  if (replaces) return changes
  const all = new Map(there.map((one) => [idOf(one), one]))
  for (const one of changes) {
    const old = all.get(idOf(one))
    all.set(idOf(one), isRecord(one) ? mergeMap(isRecord(old) ? old : {}, one, `${place.at}[]`) : one)
  }
  for (const id of goneOf(place, asks, patch)) all.delete(id)
  const wanted = patch[`${orderOf}${name}`]
  const order = (wanted === undefined ? changes : listOf(wanted, `${orderOf}${name}`)).map(idOf)
  refuseOtherOrder(changes.map(idOf), order, name)
  if (given === undefined && before === undefined) return undefined
  return inOrder([...all.keys()], order, there.map(idOf)).map((id) => all.get(id))
}

/** What tells those apart that a patch takes out of a list. */
function goneOf(place: Place, asks: readonly unknown[], patch: Json): readonly unknown[] {
  const name = `${deleteFrom}${place.at.slice(place.at.lastIndexOf('.') + 1)}`
  const taken = place.key === '' ? listOf(patch[name], name) : asks.filter(isDeletion)
  return taken.map((one) => identity(place, one))
}

const isDeletion = (one: unknown) => isRecord(one) && one['$patch'] === 'delete'

/** The first place of each. */
function placesOf(ids: readonly unknown[]): ReadonlyMap<unknown, number> {
  return new Map(ids.map((id, i) => [id, i] as const).reverse())
}

/** @throws ApiError BadRequest where the elements of a patch are not in the order that it asks for */
function refuseOtherOrder(ids: readonly unknown[], order: readonly unknown[], name: string): void {
  const places = placesOf(order)
  let last = 0
  for (const id of ids) {
    const place = places.get(id) ?? -1
    if (place < last) throw bad(`the order of ${name} does not match ${orderOf}${name}`)
    last = place
  }
}

/** Those of the patch in its order; the others keep their places between them as far as both were there before. */
function inOrder(ids: readonly unknown[], order: readonly unknown[], before: readonly unknown[]): unknown[] {
  const [there, first, was] = [new Set(ids), new Set(order), placesOf(before)]
  const others = ids.filter((id) => !first.has(id))
  const result: unknown[] = []
  let next = 0
  for (const id of first) {
    if (!there.has(id)) continue
    const at = was.get(id) ?? -1
    for (; next < others.length && (was.get(others[next]) ?? -1) < at; next += 1) result.push(others[next])
    result.push(id)
  }
  return [...result, ...others.slice(next)]
}

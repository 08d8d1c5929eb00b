import { same } from '../parse.ts'
import { isRecord } from '../prune.ts'
import { FieldSet, keyElement, memberElement, nothing, valueElement } from './field-set.ts'
import { type FieldType, memberType } from './field-type.ts'

/** A document that can't be read by its schema: a list item without its keys, or two with the same. */
export class FieldError extends Error {
  readonly path: string

  constructor(path: string, message: string) {
    super(`${path}: ${message}`)
    this.name = 'FieldError'
    this.path = path
  }
}

type ListType = FieldType & { readonly as: 'list' | 'set' }

/** The path element of a list's item. @throws FieldError where it lacks a key */
export function itemElement(type: ListType, item: unknown, path: string): string {
  if (type.as === 'set') return valueElement(item)
  if (!isRecord(item)) throw new FieldError(path, 'associative list items must be objects')
  const keys = type.keys.map((key) => {
    const value = item[key] ?? type.defaults[key]
    if (value === undefined)
      throw new FieldError(path, `associative list item has no value for its key ${JSON.stringify(key)}`)
    return [key, value] as const
  })
  return keyElement(Object.fromEntries(keys))
}

/** The items of a list by path element, in order. @throws FieldError where two have the same, or one has none */
export function itemsOf(type: ListType, list: readonly unknown[], path: string): Map<string, unknown> {
  const items = new Map<string, unknown>()
  for (const item of list) {
    const element = itemElement(type, item, path)
    if (items.has(element))
      throw new FieldError(path, `duplicate entries for key ${element.slice(2).slice(0, 200)}`)
    items.set(element, item)
  }
  return items
}

const isEmpty = (value: unknown) =>
  value === null ||
  (Array.isArray(value) ? value.length === 0 : isRecord(value) && Object.keys(value).length === 0)

/**
 * Every field that a value says: leaves, items of lists, and objects and lists that are there but empty
 * (sigs.k8s.io/structured-merge-diff's ToFieldSet). Members that the schema does not have are left out.
 * @throws FieldError
 */
export function fieldsOf(type: FieldType, value: unknown): FieldSet {
  return setOf(type, value, '', false)
}

/** @param all whether objects and lists that hold something count, too */
function setOf(type: FieldType, value: unknown, path: string, all: boolean): FieldSet {
  const members: string[] = []
  const children: [string, FieldSet][] = []
  if (type.as === 'map' && isRecord(value)) {
    for (const [name, item] of Object.entries(value)) {
      const one = memberType(type, name)
      if (!one || item === undefined) continue
      const element = memberElement(name)
      if (all || isLeaf(one, item) || !type.members.has(name)) members.push(element)
      children.push([element, setOf(one, item, `${path}.${name}`, all)])
    }
  } else if ((type.as === 'list' || type.as === 'set') && Array.isArray(value)) {
    for (const [element, item] of itemsOf(type, value, path)) {
      members.push(element)
      if (type.as === 'list') children.push([element, setOf(type.item, item, path, all)])
    }
  }
  return members.length === 0 && children.length === 0 ? nothing : new FieldSet(members, children)
}

/** Whether a member is in a set as itself: scalars, what is atomic, and what is there with nothing in it. */
function isLeaf(type: FieldType, value: unknown): boolean {
  if (type.as === 'leaf' || isEmpty(value)) return true
  return type.as === 'map' ? !isRecord(value) : !Array.isArray(value)
}

export interface Changes {
  readonly added: FieldSet
  readonly removed: FieldSet
  readonly modified: FieldSet
}

/** What differs between two values. @throws FieldError */
export function changesBetween(type: FieldType, before: unknown, after: unknown): Changes {
  const [old, now] = [fieldsOf(type, before), fieldsOf(type, after)]
  // Whoever owned an object that was empty owns nothing once it is gone.
  const places = setOf(type, before, '', true)
  const removed = places.empty ? nothing : places.minus(setOf(type, after, '', true))
  return { added: now.minus(old), removed, modified: modifiedIn(type, before, after) }
}

/** The leaves that are in both, with another value. */
function modifiedIn(type: FieldType, before: unknown, after: unknown): FieldSet {
  const members: string[] = []
  const children: [string, FieldSet][] = []
  const compare = (element: string, one: FieldType, old: unknown, now: unknown) => {
    if (old === undefined || now === undefined) return
    if (isLeaf(one, old) && isLeaf(one, now)) {
      if (!same(old, now)) members.push(element)
    } else children.push([element, modifiedIn(one, old, now)])
  }
  if (type.as === 'map' && isRecord(before) && isRecord(after)) {
    for (const [name, now] of Object.entries(after)) {
      const one = memberType(type, name)
      if (one) compare(memberElement(name), one, before[name], now)
    }
  } else if (type.as === 'list' && Array.isArray(before) && Array.isArray(after)) {
    const old = itemsOf(type, before, '')
    for (const [element, now] of itemsOf(type, after, ''))
      children.push([element, modifiedIn(type.item, old.get(element), now)])
  }
  return members.length === 0 && children.length === 0 ? nothing : new FieldSet(members, children)
}

import { isRecord } from '../prune.ts'
import { type FieldSet, type FieldsV1, fromFieldsV1, nothing, pathText, toFieldsV1 } from './field-set.ts'
import type { FieldType } from './field-type.ts'
import { changesBetween, fieldsOf } from './fields.ts'
import { merged, pruned } from './merge.ts'

/** An entry of `metadata.managedFields` (meta/v1 ManagedFieldsEntry). */
export interface ManagedFieldsEntry {
  readonly manager: string
  readonly operation: 'Apply' | 'Update'
  readonly apiVersion: string
  readonly time?: string
  readonly fieldsType: 'FieldsV1'
  readonly fieldsV1: FieldsV1
  readonly subresource?: string
}

/** Who writes, and how. */
export type Author = Pick<ManagedFieldsEntry, 'manager' | 'operation' | 'apiVersion' | 'subresource'>

/** An author with the fields that are theirs. */
export interface Manager extends Author {
  readonly time?: string
  readonly fields: FieldSet
}

/** Fields of others that an apply would change. */
export interface Conflict {
  readonly manager: Manager
  readonly fields: FieldSet
}

/** So many authors of updates are told apart; the oldest of more become one (as in Kubernetes). */
const mostUpdaters = 10
const ancient = 'ancient-changes'
/** The author of all that was there before the first apply. */
const beforeFirstApply = 'before-first-apply'

const isOf = (author: Author) => (one: Author) =>
  one.manager === author.manager &&
  one.operation === author.operation &&
  one.apiVersion === author.apiVersion &&
  (one.subresource ?? '') === (author.subresource ?? '')

/** @throws TypeError where an entry is none */
export function readManagers(entries: readonly unknown[] = []): Manager[] {
  return entries.map((entry) => {
    if (!isRecord(entry)) throw new TypeError('managedFields must be a list of objects')
    const { manager = '', operation, apiVersion, time, fieldsType, fieldsV1 = {}, subresource } = entry
    if (operation !== 'Apply' && operation !== 'Update')
      throw new TypeError('managedFields: operation must be Apply or Update')
    if (fieldsType !== 'FieldsV1') throw new TypeError('managedFields: fieldsType must be FieldsV1')
    if (typeof manager !== 'string' || typeof apiVersion !== 'string')
      throw new TypeError('managedFields: manager and apiVersion must be strings')
    return {
      ...{ manager, operation, apiVersion, fields: fromFieldsV1(fieldsV1) },
      ...(typeof time === 'string' && { time }),
      ...(typeof subresource === 'string' && subresource !== '' && { subresource }),
    }
  })
}

/** In Kubernetes' order: what was applied first, then by time and name. */
export function writeManagers(managers: readonly Manager[]): ManagedFieldsEntry[] {
  const rank = ({ operation, time = '', manager, subresource = '' }: Manager) =>
    [operation, time, manager, subresource].join('\0')
  return managers
    .filter(({ fields }) => !fields.empty)
    .toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1))
    .map(({ fields, ...author }) => ({
      ...author,
      ...{ fieldsType: 'FieldsV1' as const, fieldsV1: toFieldsV1(fields) },
    }))
}

/** What all of them own. */
export const ownedBy = (managers: readonly Manager[]) =>
  managers.reduce((all, { fields }) => all.union(fields), nothing)

const without = (fields: FieldSet) => (manager: Manager) => ({
  ...manager,
  fields: manager.fields.minus(fields),
})

/**
 * Who owns what after a write that was no apply: its author all that it changed, nobody what it took away.
 * @param at RFC 3339
 * @throws FieldError
 */
export function afterUpdate(
  type: FieldType,
  { before, next, author, at }: { before: unknown; next: unknown; author: Author; at: string },
  managers: readonly Manager[],
): Manager[] {
  const { added, removed, modified } = changesBetween(type, before, next)
  const [written, changed] = [added.union(modified), added.union(modified).union(removed)]
  if (changed.empty) return [...managers]
  const own = managers.find(isOf(author))
  const others = managers.filter((one) => one !== own).map(without(changed))
  const fields = (own?.fields ?? nothing).union(written).minus(removed)
  return capped([...others, { ...author, time: at, fields }].filter((one) => !one.fields.empty))
}

function capped(managers: readonly Manager[]): Manager[] {
  const age = ({ manager, time = '' }: Manager) => (manager === ancient ? '' : time)
  const updaters = managers
    .filter(({ operation }) => operation === 'Update')
    .toSorted((a, b) => Number(age(a) > age(b)) - Number(age(a) < age(b)))
  const old = updaters.slice(0, Math.max(0, updaters.length - mostUpdaters + 1))
  const [first] = old
  if (updaters.length <= mostUpdaters || !first) return [...managers]
  const { subresource: _, ...last } = old.at(-1) ?? first
  return [
    ...managers.filter((one) => !old.includes(one)),
    { ...last, manager: ancient, fields: ownedBy(old) },
  ]
}

export interface Application {
  readonly type: FieldType
  /** What is there, as it is stored; undefined where nothing is. */
  readonly live: unknown
  /** What is applied. */
  readonly config: unknown
  readonly author: Author
  /** RFC 3339. */
  readonly at: string
  readonly managers: readonly Manager[]
}

/** What an apply makes of an object. */
export interface Applied {
  readonly object: unknown
  /** Who owned what before: all of it `before-first-apply`, where nobody had noted it. */
  readonly managers: readonly Manager[]
  /** What its author owns from now on. */
  readonly own: Manager
}

/** The object after an apply, before it is known whether that may be. @throws FieldError */
export function applied({ type, live, config, author, at, managers }: Application): Applied {
  const known =
    live === undefined || managers.length > 0 ? managers : firstManagers(type, live, author.apiVersion, at)
  const before = known.find(isOf(author))
  const fields = fieldsOf(type, config)
  const others = known.filter((one) => one !== before)
  const whole = merged(type, live ?? {}, config)
  const object = pruned(type, whole, before?.fields ?? nothing, ownedBy(others).union(fields))
  const time = before?.fields.equals(fields) && before.time !== undefined ? before.time : at
  return { object, managers: known, own: { ...author, time, fields } }
}

function firstManagers(type: FieldType, live: unknown, apiVersion: string, time: string): Manager[] {
  const fields = fieldsOf(type, live)
  return fields.empty ? [] : [{ manager: beforeFirstApply, operation: 'Update', apiVersion, time, fields }]
}

/**
 * Who owns what after an apply that turned `before` into `next`, both as they are shown, and what it takes from others.
 * @throws FieldError
 */
export function afterApply(
  type: FieldType,
  { before, next }: { readonly before: unknown; readonly next: unknown },
  { managers, own }: Applied,
): { readonly managers: Manager[]; readonly conflicts: Conflict[] } {
  // What it took out was nobody else's, or it would still be there.
  const { added, modified } = changesBetween(type, before, next)
  const changed = added.union(modified)
  const others = managers.filter((one) => !isOf(own)(one))
  const conflicts = others
    .map((manager) => ({ manager, fields: manager.fields.both(changed) }))
    .filter(({ fields }) => !fields.empty)
  const left = others.map(without(changed)).filter(({ fields }) => !fields.empty)
  return { managers: [...left, own], conflicts }
}

/**
 * `"kubectl-edit" with subresource "status" using plasmavmc.io/v1alpha1 at 2026-01-01T00:00:00Z`, as Kubernetes has it;
 * who applied is named alone.
 */
export function authorText({ manager, operation, apiVersion, subresource, time }: Manager): string {
  const part = subresource === undefined ? '' : ` with subresource "${subresource}"`
  const name = `${JSON.stringify(manager)}${part}`
  if (operation === 'Apply') return name
  return `${name} using ${apiVersion}${time === undefined ? '' : ` at ${time}`}`
}

/** The message of Kubernetes' refusal. */
export function conflictText(conflicts: readonly Conflict[]): string {
  const paths = conflicts.map(({ fields }) => [...fields.paths()].map(pathText).sort())
  const count = paths.flat().length
  const each = conflicts.map(({ manager }, index) => {
    const [first = '', ...more] = paths[index] ?? []
    if (more.length === 0) return `conflict with ${authorText(manager)}: ${first}`
    return `conflicts with ${authorText(manager)}:\n${[first, ...more].map((path) => `- ${path}`).join('\n')}`
  })
  return `Apply failed with ${count} conflict${count === 1 ? '' : 's'}: ${each.join('\n')}`
}

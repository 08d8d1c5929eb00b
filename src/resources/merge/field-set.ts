/**
 * A set of paths in an object, as a tree. A path element is written as in Kubernetes' FieldsV1: `f:name` for a member,
 * `k:{"name":"root"}` for the item of a list with those keys, `v:"text"` for an item of a set.
 */
export class FieldSet {
  /** Elements that are in the set themselves. */
  readonly members: ReadonlySet<string>
  /** What is in the set below an element; never empty. */
  readonly children: ReadonlyMap<string, FieldSet>

  constructor(members: Iterable<string> = [], children: Iterable<readonly [string, FieldSet]> = []) {
    this.members = new Set(members)
    this.children = new Map([...children].filter(([, child]) => !child.empty))
  }

  get empty(): boolean {
    return this.members.size === 0 && this.children.size === 0
  }

  /** What is below an element; empty where there is nothing. */
  below(element: string): FieldSet {
    return this.children.get(element) ?? nothing
  }

  /** Whether an element, or anything below it, is in the set. */
  touches(element: string): boolean {
    return this.members.has(element) || this.children.has(element)
  }

  union(other: FieldSet): FieldSet {
    if (this.empty) return other
    if (other.empty) return this
    const elements = new Set([...this.children.keys(), ...other.children.keys()])
    return new FieldSet(
      [...this.members, ...other.members],
      [...elements].map((one) => [one, this.below(one).union(other.below(one))] as const),
    )
  }

  /** What is in this set and not in the other, path by path. */
  minus(other: FieldSet): FieldSet {
    if (other.empty || this.empty) return this
    return new FieldSet(
      [...this.members].filter((one) => !other.members.has(one)),
      [...this.children].map(([one, child]) => [one, child.minus(other.below(one))] as const),
    )
  }

  /** What is in both. */
  both(other: FieldSet): FieldSet {
    return new FieldSet(
      [...this.members].filter((one) => other.members.has(one)),
      [...this.children].map(([one, child]) => [one, child.both(other.below(one))] as const),
    )
  }

  equals(other: FieldSet): boolean {
    return this.minus(other).empty && other.minus(this).empty
  }

  /** Every path that is in the set, as its elements. */
  *paths(): Generator<readonly string[]> {
    for (const one of this.members) yield [one]
    for (const [one, child] of this.children) for (const rest of child.paths()) yield [one, ...rest]
  }
}

export const nothing = new FieldSet()

export const memberElement = (name: string) => `f:${name}`
export const valueElement = (value: unknown) => `v:${JSON.stringify(value)}`
/** @param keys members in the order of their names */
export const keyElement = (keys: Readonly<Record<string, unknown>>) =>
  `k:${JSON.stringify(Object.fromEntries(Object.entries(keys).sort(([a], [b]) => (a < b ? -1 : 1))))}`

/** FieldsV1, a JSON value. */
export type FieldsV1 = { readonly [element: string]: FieldsV1 }

/** FieldsV1 of a set (meta/v1: `.` stands for the element itself where there is something below it). */
export function toFieldsV1(set: FieldSet): FieldsV1 {
  const elements = [...new Set([...set.members, ...set.children.keys()])].sort()
  return Object.fromEntries(
    elements.map((one) => {
      const child = set.children.get(one)
      if (!child) return [one, {}]
      return [one, { ...(set.members.has(one) && { '.': {} }), ...toFieldsV1(child) }]
    }),
  )
}

const maxDepth = 100

/** @throws TypeError where it is no FieldsV1 */
export function fromFieldsV1(fields: unknown, depth = 0): FieldSet {
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields) || depth > maxDepth)
    throw new TypeError('fieldsV1 must be an object of objects')
  const members: string[] = []
  const children: [string, FieldSet][] = []
  for (const [element, below] of Object.entries(fields)) {
    if (element === '.') continue
    const normal = normalElement(element)
    const child = fromFieldsV1(below, depth + 1)
    children.push([normal, child])
    if (child.empty || Object.hasOwn(below as object, '.')) members.push(normal)
  }
  return new FieldSet(members, children)
}

/** Keys and values as we write them, whoever wrote them. @throws TypeError */
function normalElement(element: string): string {
  const rest = element.slice(2)
  switch (element.slice(0, 2)) {
    case 'f:':
      return element
    case 'v:':
      return valueElement(JSON.parse(rest))
    case 'k:':
      return keyElement(JSON.parse(rest))
    case 'i:':
      return `i:${Number(rest)}`
    default:
      throw new TypeError(`fieldsV1 has ${JSON.stringify(element)}, which is no path element`)
  }
}

/** A path as Kubernetes writes it in a conflict: `.spec.disks[name="root"].size`, `.metadata.finalizers[="x"]`. */
export function pathText(path: readonly string[]): string {
  return path
    .map((element) => {
      const rest = element.slice(2)
      if (element.startsWith('f:')) return `.${rest}`
      if (element.startsWith('v:')) return `[=${rest}]`
      if (element.startsWith('i:')) return `[${rest}]`
      const keys = Object.entries(JSON.parse(rest) as Record<string, unknown>)
      return `[${keys.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(',')}]`
    })
    .join('')
}

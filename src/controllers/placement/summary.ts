import type { Refusal } from './fit.ts'

/** Up to this many hosts each is named with its reason; of more, reasons of one kind are counted. */
const mostNamed = 8
/** Longest message: it stands in a status, a condition and an Event. */
const longest = 1_000

function grouped<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return [...groups.values()]
}

type Refused = readonly [host: string, why: Refusal]

/** `3 hosts such as a: memory: …` */
function counted(group: readonly Refused[]): string {
  const [host, why] = group[0] as Refused
  return group.length === 1
    ? `${host}: ${why.message}`
    : `${group.length} hosts such as ${host}: ${why.message}`
}

/** `a, b: cordoned …` */
function named(group: readonly Refused[]): string {
  return `${group.map(([host]) => host).join(', ')}: ${group[0]?.[1].message}`
}

/**
 * Why no host fits, at most 1000 characters: `0 of 3 hosts fit: a: cordoned (…); b, c: memory: 512Mi wanted, …`.
 * @param refusals in the order of hosts' names
 */
export function summaryOf(refusals: ReadonlyMap<string, Refusal>): string {
  const all = [...refusals]
  if (all.length === 0) return 'there is no host'
  const few = all.length <= mostNamed
  const groups = few
    ? grouped(all, ([, { message }]) => message)
    : grouped(all, ([, { kind }]) => kind).sort((a, b) => b.length - a.length)
  const text = `0 of ${all.length} hosts fit: ${groups.map(few ? named : counted).join('; ')}`
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`
}

import { createHash } from 'node:crypto'
import type { VmSpec } from '../resources/vm.ts'
import { placementMembers } from '../resources/vm-placement.ts'

/** Members that change how we treat a machine, not how its QEMU was started. */
const live: ReadonlySet<string> = new Set([
  'runStrategy',
  'terminationGracePeriodSeconds',
  ...placementMembers,
])

/** JSON with the keys of every object sorted and undefined members left out. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item)).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`)
  return `{${members.join(',')}}`
}

/** Specs are not changed once they were read, and each is asked for at every look at its machine. */
const known = new WeakMap<VmSpec, string>()

/**
 * 16 hex digits over the members of a spec that reach a guest only through a new start of its QEMU.
 * Equal specs have equal hashes, whatever the order of their keys.
 */
export function specHash(spec: VmSpec): string {
  const hash = known.get(spec) ?? hashOf(spec)
  known.set(spec, hash)
  return hash
}

function hashOf(spec: VmSpec): string {
  const needsRestart = Object.fromEntries(Object.entries(spec).filter(([key]) => !live.has(key)))
  return createHash('sha256').update(canonical(needsRestart)).digest('hex').slice(0, 16)
}

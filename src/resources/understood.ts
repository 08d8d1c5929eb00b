import type { z } from 'zod'
import type { KubeObject, ResourceDefinition } from './define.ts'
import { isRecord, unwrap } from './prune.ts'

/** Why an object that was read is not valid here, by the object. Copies have to be told. */
const findings = new WeakMap<object, string>()

/** What keeps this version from understanding an object that another one stored; undefined where it does. */
export const misunderstood = (object: KubeObject): string | undefined => findings.get(object)

export function noteMisunderstood<T extends KubeObject>(object: T, why: string): T {
  findings.set(object, why)
  return object
}

/**
 * The object as code may rely on it: what its spec says that this version does not understand has its default in place,
 * and the rest of it stays. What is wrong is still told by `misunderstood`: nothing may be done to the world by such a
 * spec. Its status stays as it was stored, as what may run is known from that.
 */
export function understood<T extends KubeObject>(kind: ResourceDefinition<T>, object: T): T {
  const why = misunderstood(object)
  const schema = kind.body.shape['spec'] as z.ZodType | undefined
  if (why === undefined || !schema) return object
  const spec = keptOf(schema, (object as { spec?: unknown }).spec)
  return noteMisunderstood({ ...object, ...(spec !== undefined && { spec }) }, why)
}

/** With all members that are valid by themselves; with defaults alone where those don't go together. */
function keptOf(schema: z.ZodType, value: unknown): unknown {
  const shape = (unwrap(schema) as Partial<z.ZodObject>).shape ?? {}
  const members = isRecord(value) ? Object.entries(value) : []
  const valid = members.filter(([key, member]) => {
    const known = Object.hasOwn(shape, key) ? (shape[key] as z.ZodType) : undefined
    return known?.safeParse(member).success === true
  })
  return [Object.fromEntries(valid), undefined].map((one) => schema.safeParse(one)).find((one) => one.success)
    ?.data
}

/** Members of a stored status that only another version knows: its own writes must not lose them. */
export function unknownMembers(kind: ResourceDefinition, status: unknown): Readonly<Record<string, unknown>> {
  const schema = kind.body.shape['status'] as z.ZodType | undefined
  const shape = schema && (unwrap(schema) as Partial<z.ZodObject>).shape
  if (!shape || !isRecord(status)) return {}
  const strange = Object.keys(status).filter((key) => !Object.hasOwn(shape, key) && key !== '__proto__')
  return Object.fromEntries(strange.map((key) => [key, status[key]]))
}

import type { Cause } from './parse.ts'
import { bytesOf } from './quantity.ts'

/** What is asked about a machine's disks, whatever else it is. */
interface WithDisks {
  readonly spec: { readonly disks: readonly SizedDisk[] }
  readonly status?:
    | { readonly disks: readonly { readonly name: string; readonly size?: string | undefined }[] }
    | undefined
}

interface SizedDisk {
  readonly name: string
  readonly size?: string | undefined
  readonly path?: string | undefined
}

/** Disks are made in whole sectors of 512 bytes. */
const sectors = (size: string) => Math.ceil(bytesOf(size) / 512)

/**
 * Findings where an update makes a disk smaller than it stands in status to have been made. CEL could compare the two
 * only where both are quantities for sure, so this is not in the CustomResourceDefinition: the agent refuses it there,
 * as it does in any case.
 */
export function shrunkDisks(before: WithDisks, after: WithDisks): Cause[] {
  return after.spec.disks.flatMap(({ name, size, path }, index) => {
    const has = before.status?.disks.find((disk) => disk.name === name)?.size
    const was = before.spec.disks.find((disk) => disk.name === name)?.size
    if (has === undefined || size === undefined || path !== undefined) return []
    // One that is too small already hinders no other update.
    const smaller = was === undefined || sectors(size) < sectors(was)
    if (!smaller || sectors(size) >= sectors(has)) return []
    const message = `Invalid value: ${JSON.stringify(size)}: disk ${name} has ${has} and is never made smaller; set it to ${has}, or take another name for a new disk`
    return [{ reason: 'FieldValueInvalid', field: `spec.disks[${index}].size`, message }]
  })
}

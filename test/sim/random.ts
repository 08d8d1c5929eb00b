import { product } from '../../src/sim/product.ts'
import { report, search } from '../../src/sim/search.ts'

/** Schedules of each file; there are two, for two processors. `SCHEDULES=500` plays a tenth. */
export const perFile = Number(process.env['SCHEDULES'] ?? 5_000)

/** @returns everything about the first schedule of a part that breaks a rule; nothing where none does */
export async function searchPart(part: number): Promise<string> {
  const found = await search(part * 1_000_000, perFile, product)
  return found ? report(found) : ''
}

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Collects what nothing holds any more, once what is under way in this turn is done. */
export async function collected(): Promise<void> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  await new Promise((resolve) => setImmediate(resolve))
  collect()
}

/** How many of them something still holds. */
export const held = (all: readonly WeakRef<object>[]): number =>
  all.filter((one) => one.deref() !== undefined).length

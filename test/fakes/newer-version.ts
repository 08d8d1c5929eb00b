import type { ResourceDefinition } from '../../src/resources/define.ts'
import type { Kv } from '../../src/store/kv.ts'
import { keyFor } from '../../src/store/object-keys.ts'
import type { Ref } from '../../src/store/objects.ts'

type Stored = Record<'spec' | 'status', Record<string, unknown>>

/** Stores what only another version of PlasmaVMC would: no rule of this one is asked. */
export async function asNewerVersion(
  kv: Kv,
  kind: ResourceDefinition,
  ref: Ref,
  change: (stored: Stored) => void,
): Promise<void> {
  const key = keyFor(kind, ref)
  for (;;) {
    const entry = await kv.get(key)
    if (!entry) throw new Error(`there is no ${key}`)
    const object = JSON.parse(entry.value) as Stored
    change(object)
    if ((await kv.put(key, JSON.stringify(object), entry.revision)) !== undefined) return
  }
}

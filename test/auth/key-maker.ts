import { writeSync } from 'node:fs'
import { GuardedObjects } from '../../src/auth/guarded-objects.ts'
import { mastersGroup } from '../../src/auth/identity.ts'
import { KeySecrets } from '../../src/auth/key-secrets.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { AccessKey } from '../../src/resources/access-key.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { openLmdb } from '../../src/store/lmdb.ts'

// Makes a key, then another of which it only keeps the secret: there it waits to be killed.
const [folder = ''] = process.argv.slice(2)
const kv = await openLmdb(folder)
const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
const readKeys = () => [{ id: 'k', bytes: new Uint8Array(32) }]
const secrets = new KeySecrets({ kv, readKeys, clock: systemClock, log: silentLog })
const keeper = {
  keep: async (uid: string, secret: string) => {
    const held = await secrets.keep(uid, secret)
    writeSync(1, `${uid}\n`)
    if (stops) await new Promise(() => setInterval(() => {}, 1_000))
    return held
  },
  forget: (uid: string) => secrets.forget(uid),
  known: async () => {},
}
const identity = { name: 'admin', groups: [mastersGroup] }
const store = new GuardedObjects(objects, { identity, may: () => true, rules: () => [] }, keeper)
const key = (name: string) =>
  ({
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'AccessKey', metadata: { name } },
    spec: { user: 'a' },
  }) as AccessKey
let stops = false
await store.create(AccessKey, key('whole'))
stops = true
await store.create(AccessKey, key('half'))

import { writeSync } from 'node:fs'
import type { Kv } from '../../src/store/kv.ts'
import { openLmdb } from '../../src/store/lmdb.ts'

// Makes, changes and deletes keys in several stores, in parallel, for ever. Prints each change only after it was
// acknowledged, as `STORE KEY VALUE`, with `-` for a deletion.
const [round = '', ...folders] = process.argv.slice(2)
const stores = await Promise.all(folders.map((folder) => openLmdb(folder, { historyLimit: 100_000 })))
writeSync(1, 'open\n')

async function lane(kv: Kv, store: number, id: number) {
  for (let i = 0; ; i += 1) {
    const key = `/k/${round}/${id}/${i}`
    const made = (await kv.put(key, key.repeat(20), 0n)) ?? 0n
    writeSync(1, `${store} ${key} ${key.repeat(20)}\n`)
    if (i % 3 === 0) continue
    const changed = (await kv.put(key, 'changed', made)) ?? 0n
    writeSync(1, `${store} ${key} changed\n`)
    if (i % 3 === 1) continue
    await kv.delete(key, changed)
    writeSync(1, `${store} ${key} -\n`)
  }
}
await Promise.all(stores.flatMap((kv, store) => Array.from({ length: 4 }, (_, id) => lane(kv, store, id))))

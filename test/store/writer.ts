import { writeSync } from 'node:fs'
import { openLmdb } from '../../src/store/lmdb.ts'

// Writes keys in parallel for ever and prints each only after it was acknowledged.
const [folder = '', round = ''] = process.argv.slice(2)
const kv = await openLmdb(folder)
writeSync(1, 'open\n')
const lane = async (id: number) => {
  for (let i = 0; ; i += 1) {
    const key = `/k/${round}/${id}/${i}`
    await kv.put(key, key.repeat(20), 0n)
    writeSync(1, `${key}\n`)
  }
}
await Promise.all(Array.from({ length: 8 }, (_, id) => lane(id)))

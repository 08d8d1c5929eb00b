import { writeSync } from 'node:fs'
import { openLmdb } from '../../src/store/lmdb.ts'

// Some rounds of writes, three at a time, small and large, and an end. Prints `KEY VALUE` once it was acknowledged.
const [folder = '', rounds = ''] = process.argv.slice(2)
const kv = await openLmdb(folder, { historyLimit: 10 })
const lane = async (round: number, id: number) => {
  const key = `/k/${id}/${round % 4}`
  const before = await kv.get(key)
  const value = `${round}.${id} ${'x'.repeat(id * 3_000)}`
  if (round % 5 === 4 && before) {
    await kv.delete(key, before.revision)
    writeSync(1, `${key} -\n`)
  } else {
    await kv.put(key, value, before?.revision ?? 0n)
    writeSync(1, `${key} ${round}.${id}\n`)
  }
}
for (let round = 0; round < Number(rounds); round += 1)
  await Promise.all([0, 1, 2].map((id) => lane(round, id)))
await kv.close()

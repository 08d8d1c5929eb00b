import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { silentLog } from '../../src/lib/log.ts'
import type { KvEvent } from '../../src/store/kv.ts'
import { openLmdb } from '../../src/store/lmdb.ts'

// Writes until the disk refuses, says how, then writes on once a line came in, and says what its watcher saw.
const [folder = ''] = process.argv.slice(2)
const say = (what: unknown) => writeSync(1, `${JSON.stringify(what)}\n`)
const told: unknown[] = []
const tell = (message: string) => void told.push(message)
const log = { ...silentLog, error: tell, info: tell }
const kv = await openLmdb(folder, { log })
const stop = new AbortController()
const events: KvEvent[] = []
const watching = (async () => {
  for await (const event of kv.watch('/', 0n, stop.signal)) events.push(event)
})()
const written: string[] = []
const refusals: unknown[] = []
const lane = async (id: number) => {
  for (let i = 0; refusals.length < 20; i += 1) {
    const key = `/k/${id}/${i}`
    try {
      // Nothing that the store could make smaller.
      await kv.put(key, randomBytes(3_000).toString('base64'), 0n)
      written.push(key)
    } catch (error) {
      const { reason, message, hint } = error as Record<string, unknown>
      refusals.push({ reason, message, hint })
    }
  }
}
await Promise.all([0, 1, 2, 3].map(lane))
const { entries } = await kv.list('/')
const trouble = await kv.trouble(5_000)
say({ trouble, written: written.length, kept: entries.length, refusal: refusals[0] })
await once(process.stdin, 'data')
const stillTroubled = await kv.trouble(5_000)
const revision = await kv.put('/after', 'x', 0n)
stop.abort()
await watching
say({
  stillTroubled,
  revision: Number(revision),
  told,
  missing: written.filter((key) => !entries.some((entry) => entry.key === key)),
  watched: events.map((event) => Number(event.revision)),
})
await kv.close()
process.exit(0)

import { download } from '../../src/host/download.ts'
import { systemClock } from '../../src/lib/clock.ts'

/** Downloads a URL in a process whose environment says which CAs the host trusts. */
const [, , url = '', to = ''] = process.argv
const job = { url, to, limit: 1e9, clock: systemClock, stallMs: 10_000, onPercent: () => {} }
await download({ ...job, signal: AbortSignal.timeout(20_000) }).then(
  (sum) => console.log(sum),
  (error) => console.log(error.message),
)

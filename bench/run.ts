import { admin } from './admin.ts'
import { api } from './api.ts'
import { etcd } from './etcd.ts'
import { failover } from './failover.ts'
import { guard } from './guard.ts'
import { leader } from './leader.ts'
import { hundred, startAndKill } from './machines.ts'
import { placement } from './placement.ts'
import { signatures } from './signatures.ts'
import { simulated } from './simulated.ts'
import type { Figure } from './stats.ts'
import { unplaced } from './unplaced.ts'
import { writes } from './writes.ts'

const suites: Readonly<Record<string, () => Promise<Figure[]>>> = {
  start: startAndKill,
  hundred,
  guard,
  simulated,
  placement,
  unplaced,
  leader,
  writes,
  failover,
  signatures,
  admin,
  api,
  etcd,
}

const wanted = process.argv.slice(2)
for (const [name, suite] of Object.entries(suites)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  process.stderr.write(`bench: ${name} …\n`)
  for (const { what, value, goal } of await suite())
    process.stdout.write(`| ${what} | ${value} | ${goal} |\n`)
}

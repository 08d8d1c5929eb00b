import { execFileSync } from 'node:child_process'
import { program } from './lab.ts'
import { type Figure, median, ms, repeat } from './stats.ts'

interface Report {
  readonly rows: readonly { readonly outcome?: { readonly recoveredMs?: number } }[]
}

/** One host of three without power, everything at its defaults. @returns ms until its machine runs elsewhere */
function lose(): number {
  const args = ['drill', '--only', 'host lost', '-o', 'json']
  // Where it fails, so does this call, with what the drill said.
  const text = execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  const [row] = (JSON.parse(text) as Report).rows
  if (row?.outcome?.recoveredMs === undefined) throw new Error('host lost: nothing was measured')
  return row.outcome.recoveredMs
}

/** Real hosts in namespaces, real etcd, real QEMUs: how long a machine of a lost host is away. */
export async function failover(plays = 20): Promise<Figure[]> {
  const took = await repeat(plays, async (i) => {
    process.stderr.write(`bench: failover: ${i + 1} of ${plays}\n`)
    return lose()
  })
  return [
    {
      what: `host lost → its machine runs elsewhere, defaults, ${plays} plays`,
      value: `p50 ${ms(median(took))}, max ${ms(Math.max(...took))}`,
      goal: '≤ 15 s',
    },
  ]
}

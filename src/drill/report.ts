import { readFile, writeFile } from 'node:fs/promises'
import type { Output } from '../cli/io.ts'
import { renderTable } from '../cli/output.ts'
import { PlasmaError } from '../lib/errors.ts'
import { type Group, groups, type Measured, type Texts } from './mode.ts'
import type { Lack } from './needs.ts'
import type { Testimony, Twins } from './witness.ts'

/** What came of one failure mode. */
export type Row = { readonly mode: string; readonly group: Group } & (
  | { readonly outcome: Measured & Texts }
  | { readonly error: string }
  | { readonly notPlayed: readonly Lack[] }
)

export interface Report {
  /** Where it was measured, in words. */
  readonly machine: string
  /** How long all of it took, ms. */
  readonly tookMs: number
  readonly rows: readonly Row[]
  readonly witness: Testimony & { readonly twins: readonly Twins[] }
}

const begin = '<!-- drill:begin -->'
const end = '<!-- drill:end -->'
/** Widths between which the table fits its terminal. */
const [narrowest, widest] = [80, 120]

const titles: Readonly<Record<Group, string>> = {
  'one-host': 'One host, embedded store',
  cluster: 'Three hosts with guards, an etcd member on each',
}

export function duration(ms: number | undefined): string {
  if (ms === undefined) return '–'
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

const lacked = (lacks: readonly Lack[]) => lacks.map(({ what, hint }) => `${what}: ${hint}`).join('; ')

/** The cells of a row: detected, recovered, what happens by itself, what a person does. */
function cellsOf(row: Row): readonly [string, string, string, string] {
  if ('error' in row) return ['–', '–', `FAILED: ${row.error}`, '–']
  if ('notPlayed' in row) return ['–', '–', `NOT PLAYED: ${lacked(row.notPlayed)}`, '–']
  const { detectedMs, recoveredMs, recovery, manual } = row.outcome
  return [duration(detectedMs), duration(recoveredMs), recovery, manual]
}

/** The rows of a group as a table of Markdown. */
export function markdown(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const cells = cellsOf(row).map((cell) => cell.replaceAll('|', '/').replaceAll('\n', ' '))
    return `| ${[row.mode, ...cells].join(' | ')} |`
  })
  const head = ['| failure mode | detected | recovered | by itself | by hand |', '|---|---|---|---|---|']
  return [...head, ...lines].join('\n')
}

/** What stands between the marks of the runbook. */
export function generated({ rows, machine }: Report): string {
  const tables = groups.flatMap((group) => {
    const own = rows.filter((row) => row.group === group)
    return own.length === 0 ? [] : [`### ${titles[group]}\n\n${markdown(own)}\n`]
  })
  return [...tables, `${machine}\n`].join('\n')
}

/** The tables for a terminal, 80 to 120 columns wide; what a person does stands in a line of its own. */
export function terminal({ rows }: Pick<Report, 'rows'>, columns = narrowest): string {
  const out: Output = {
    write: () => true,
    isTTY: true,
    columns: Math.min(widest, Math.max(narrowest, columns)),
  }
  const tables = groups.flatMap((group) => {
    const own = rows.filter((row) => row.group === group)
    if (own.length === 0) return []
    const lines = own.flatMap((row) => {
      const [detected, recovered, itself, hand] = cellsOf(row)
      const first = [row.mode, detected, recovered, itself]
      return hand === 'none' || hand === '–' ? [first] : [first, [' ', ' ', ' ', `by hand: ${hand}`]]
    })
    const columns = ['failure', 'detected', 'recovered', 'by itself']
    const { text } = renderTable({ columns, rows: lines }, { out, env: { NO_COLOR: '1' }, wrap: true })
    return [`${titles[group]}\n${text}`]
  })
  return tables.join('\n')
}

/** Puts the tables between the marks of a file. @throws PlasmaError `NoMarks` where it has none */
export async function writeRunbook(file: string, report: Report): Promise<void> {
  const text = await readFile(file, 'utf8')
  const [head, tail] = [text.indexOf(begin), text.indexOf(end)]
  if (head < 0 || tail < head)
    throw new PlasmaError('NoMarks', `${file} has no lines ${begin} and ${end}`, {
      hint: 'put them where the tables belong',
    })
  await writeFile(file, `${text.slice(0, head)}${begin}\n${generated(report)}${text.slice(tail)}`)
}

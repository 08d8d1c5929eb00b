import { readFile, writeFile } from 'node:fs/promises'
import { arch, availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Io } from '../cli/io.ts'
import { errnoOf, messageOf } from '../lib/errors.ts'
import { Lab } from './lab.ts'
import { type Outcome, scenarios } from './scenarios.ts'

export interface DrillOptions {
  /** Names of failure modes to play; all where absent. */
  readonly only?: readonly string[]
  readonly output?: 'json' | 'table'
  /** Write the table into docs/runbook.md of the checkout. */
  readonly write?: boolean
  /** Keep the scratch folder. */
  readonly keep?: boolean
}

export type Row = { readonly mode: string } & ({ readonly outcome: Outcome } | { readonly error: string })

const begin = '<!-- drill:begin -->'
const end = '<!-- drill:end -->'

function ms(value: number | undefined): string {
  if (value === undefined) return '–'
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`
}

/** The runbook's table, as Markdown. */
export function table(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    if ('error' in row) return `| ${row.mode} | – | FAILED: ${row.error.replaceAll('|', '/')} | – |`
    const { detectedMs, recoveredMs, recovery, manual } = row.outcome
    const detection = detectedMs === undefined ? '– (nothing runs that could notice)' : ms(detectedMs)
    return `| ${row.mode} | ${detection} | ${recoveredMs === undefined ? '' : `${ms(recoveredMs)}: `}${recovery} | ${manual} |`
  })
  return [
    '| failure mode | detection time | automatic recovery | manual steps |',
    '|---|---|---|---|',
    ...lines,
  ].join('\n')
}

/** Each failure mode in turn, each in a lab of its own, so that none inherits another's back-off. */
async function play(options: DrillOptions, io: Io): Promise<Row[]> {
  const chosen = scenarios.filter(({ name }) => !options.only?.length || options.only.includes(name))
  const rows: Row[] = []
  for (const { name, play: run } of chosen) {
    io.stderr.write(`drill: ${name} … `)
    const lab = await Lab.make(io, join(io.root, '.cache', 'guest'))
    let failed = false
    try {
      await lab.startServer()
      await lab.apply()
      const outcome = await run(lab)
      rows.push({ mode: name, outcome })
      io.stderr.write(`detected ${ms(outcome.detectedMs)}, recovered ${ms(outcome.recoveredMs)}\n`)
    } catch (error) {
      failed = true
      rows.push({ mode: name, error: messageOf(error) })
      io.stderr.write(`FAILED: ${messageOf(error)} (kept: ${lab.dir})\n`)
    } finally {
      await lab.close(failed || options.keep === true)
    }
    io.signal.throwIfAborted()
  }
  return rows
}

async function writeRunbook(file: string, rows: readonly Row[]): Promise<void> {
  const text = await readFile(file, 'utf8')
  const [head, tail] = [text.indexOf(begin), text.indexOf(end)]
  if (head < 0 || tail < head) throw new Error(`${file} has no lines ${begin} and ${end}`)
  const machine = `Measured on ${availableParallelism()} cores (${arch()}), one machine with a guest under emulation (TCG) or KVM as detected.`
  await writeFile(file, `${text.slice(0, head)}${begin}\n${table(rows)}\n\n${machine}\n${text.slice(tail)}`)
}

/** Plays failures on real QEMUs in scratch folders and prints what it measured. @returns 0, or 1 where one failed */
export async function drill(options: DrillOptions, io: Io): Promise<number> {
  const rows = await play(options, io)
  if (options.output === 'json') io.stdout.write(`${JSON.stringify(rows, null, 2)}\n`)
  else io.stdout.write(`${table(rows)}\n`)
  const complete = !options.only?.length && rows.every((row) => 'outcome' in row)
  if (complete && options.write !== false) {
    const file = join(io.root, 'docs', 'runbook.md')
    await writeRunbook(file, rows).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error
    })
  }
  return rows.every((row) => 'outcome' in row) ? 0 : 1
}

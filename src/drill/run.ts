import { mkdtemp, rm } from 'node:fs/promises'
import { arch, availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Io } from '../cli/io.ts'
import { progressLine } from '../cli/progress.ts'
import { adviceOf } from '../lib/errors.ts'
import { clusterModes } from './cluster/scenarios.ts'
import { type Group, groups, type Mode } from './mode.ts'
import { type Lack, lacksOf, probesOf } from './needs.ts'
import { duration, type Report, type Row, terminal, writeRunbook } from './report.ts'
import { oneHostModes } from './scenarios.ts'
import { Witness } from './witness.ts'

export interface DrillOptions {
  /** Groups, or names of failure modes, to play; all where absent. */
  readonly only?: readonly string[]
  readonly output?: 'json' | 'table'
  /** Write the tables into docs/runbook.md of the checkout, where every row was played. */
  readonly write?: boolean
  /** Keep the scratch folder. */
  readonly keep?: boolean
}

export const modes: readonly Mode[] = [...oneHostModes, ...clusterModes]

/** What `--only` can name. */
export const choices: readonly string[] = [...groups, ...new Set(modes.map(({ name }) => name))]

const chosen = (only: readonly string[] = []) =>
  modes.filter(({ name, group }) => only.length === 0 || only.includes(name) || only.includes(group))

/** Plays one mode. @returns its row; one of which two QEMUs were seen has failed, whatever else it did */
async function playOne(mode: Mode, folder: string, title: string, run: Run): Promise<Row> {
  const { io, options, witness } = run
  const { name, group, recovery, manual } = mode
  const line = progressLine(io)
  const tell = (what: string) => line.show(`drill: ${title}: ${what}`)
  const stage = { program: io.program, guestDir: run.guestDir, folder, keep: options.keep === true, tell }
  let row: Row
  try {
    const measured = await mode.play({ ...stage, signal: io.signal })
    row = { mode: name, group, outcome: { ...measured, recovery, manual } }
  } catch (error) {
    io.signal.throwIfAborted()
    row = { mode: name, group, error: adviceOf(error) }
  } finally {
    line.end()
  }
  const twins = witness.takeTwins()
  run.twins.push(...twins)
  const seen = twins.map(({ uid, pids }) => `${uid} (pids ${pids.join(', ')})`).join('; ')
  return seen === '' ? row : { mode: name, group, error: `two QEMUs of one machine lived at once: ${seen}` }
}

interface Run {
  readonly io: Io
  readonly options: DrillOptions
  readonly guestDir: string
  readonly witness: Witness
  readonly twins: Report['witness']['twins'][number][]
}

function told(row: Row): string {
  if ('error' in row) return `FAILED: ${row.error}`
  if ('notPlayed' in row) return 'not played'
  const { detectedMs, recoveredMs } = row.outcome
  return `detected ${duration(detectedMs)}, recovered ${duration(recoveredMs)}`
}

/** Says once for a group what it lacks. */
async function lacks(
  own: readonly Mode[],
  guestDir: string,
  io: Io,
): Promise<ReadonlyMap<Group, readonly Lack[]>> {
  const found = new Map<Group, readonly Lack[]>()
  for (const group of groups.filter((one) => own.some((mode) => mode.group === one))) {
    const missing = await lacksOf(group, probesOf(guestDir, io.uid))
    found.set(group, missing)
    for (const { what, hint } of missing) {
      io.stderr.write(`drill: the rows of ${group} can't be played: ${what}\n       ${hint}\n`)
    }
  }
  return found
}

/** Each mode in turn, each in a lab of its own, so that none inherits another's back-off. */
async function playAll(own: readonly Mode[], folder: string, run: Run): Promise<Row[]> {
  const { io } = run
  const missing = await lacks(own, run.guestDir, io)
  const rows: Row[] = []
  for (const [i, mode] of own.entries()) {
    const notPlayed = missing.get(mode.group) ?? []
    const title = `${i + 1}/${own.length} ${mode.group}: ${mode.name}`
    const row: Row =
      notPlayed.length > 0
        ? { mode: mode.name, group: mode.group, notPlayed }
        : await playOne(mode, folder, title, run)
    rows.push(row)
    io.stderr.write(`drill: ${title}: ${told(row)}\n`)
    io.signal.throwIfAborted()
  }
  return rows
}

const machine = () => {
  const guests = 'guests under emulation (TCG), or KVM where it works'
  return `Measured on ${availableParallelism()} cores (${arch()}), all hosts on that one machine, ${guests}.`
}

async function measure(own: readonly Mode[], options: DrillOptions, io: Io): Promise<Report> {
  const folder = await mkdtemp(join(tmpdir(), 'pvd-'))
  const began = io.clock.elapsed()
  const witness = new Witness(folder)
  const run: Run = { io, options, guestDir: join(io.root, '.cache', 'guest'), witness, twins: [] }
  let kept = options.keep === true
  try {
    const rows = await playAll(own, folder, run)
    kept ||= rows.some((row) => 'error' in row)
    const tookMs = io.clock.elapsed() - began
    return { machine: machine(), tookMs, rows, witness: { ...witness.close(), twins: run.twins } }
  } finally {
    witness.close()
    if (kept) io.stderr.write(`drill: logs are kept in ${folder}\n`)
    else await rm(folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

function summary({ rows, witness, tookMs }: Report): string {
  const count = (word: string) => rows.filter((row) => word in row).length
  const parts = [`${count('outcome')} of ${rows.length} rows played`]
  if (count('error') > 0) parts.push(`${count('error')} failed`)
  if (count('notPlayed') > 0)
    parts.push(`${count('notPlayed')} not played, as this machine lacks what they need`)
  const minutes = (tookMs / 60_000).toFixed(1)
  const twins = witness.twins.length === 0 ? 'never' : `${witness.twins.length} times`
  const looks = `two QEMUs of one machine: ${twins}, in ${witness.looks} looks at most ${duration(witness.longestMs)} apart`
  return `drill: ${parts.join(', ')} in ${minutes} min\ndrill: ${looks}\n`
}

/**
 * Plays failures on real QEMUs in scratch folders, and prints what it measured.
 * @returns 0; 1 where one failed, or can't be played on this machine
 */
export async function drill(options: DrillOptions, io: Io): Promise<number> {
  const report = await measure(chosen(options.only), options, io)
  if (options.output === 'json') io.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
  else io.stdout.write(terminal(report, io.stdout.columns))
  io.stderr.write(summary(report))
  const well = report.rows.every((row) => 'outcome' in row)
  if (!options.write) return well ? 0 : 1
  if (well && report.rows.length === modes.length)
    await writeRunbook(join(io.root, 'docs', 'runbook.md'), report)
  else io.stderr.write('drill: docs/runbook.md stays as it is: not every row was played\n')
  return well ? 0 : 1
}

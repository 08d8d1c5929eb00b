import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { generated, markdown, type Report, type Row, terminal, writeRunbook } from '../../src/drill/report.ts'
import { modes } from '../../src/drill/run.ts'

const outcome = { recovery: 'by itself', manual: 'none' }
const rows: readonly Row[] = [
  { mode: 'quick', group: 'one-host', outcome: { detectedMs: 12.4, recoveredMs: 1_250, ...outcome } },
  { mode: 'by hand', group: 'one-host', outcome: { recovery: 'none', manual: 'turn it on' } },
  { mode: 'broken', group: 'one-host', error: 'not within 5 s: a|b' },
  {
    ...{ mode: 'elsewhere', group: 'cluster' },
    notPlayed: [{ what: 'not installed: etcd', hint: 'apt install etcd-server (Debian)' }],
  },
]
const report = (of: readonly Row[]): Report => ({
  ...{ machine: 'Measured here.', tookMs: 1, rows: of },
  witness: { looks: 1, longestMs: 1, twins: [] },
})
/** Each mode as if it took longest. */
const all: readonly Row[] = modes.map(({ name, group, recovery, manual }) => ({
  ...{ mode: name, group },
  outcome: { detectedMs: 99_900, recoveredMs: 99_900, recovery, manual },
}))

let folder: string | undefined
afterEach(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true })
  folder = undefined
})

test('the table tells what was measured, what was not, what failed and what was not played', () => {
  expect(markdown(rows).split('\n')).toEqual([
    '| failure mode | detected | recovered | by itself | by hand |',
    '|---|---|---|---|---|',
    '| quick | 12 ms | 1.3 s | by itself | none |',
    '| by hand | – | – | none | turn it on |',
    '| broken | – | – | FAILED: not within 5 s: a/b | – |',
    '| elsewhere | – | – | NOT PLAYED: not installed: etcd: apt install etcd-server (Debian) | – |',
  ])
})

test('the tables of all modes fit 120 columns in the runbook', () => {
  const long = generated(report(all))
    .split('\n')
    .filter((line) => line.startsWith('|') && line.length > 120)
  expect(long).toEqual([])
})

test.each([
  [40, 80],
  [80, 80],
  [100, 100],
  [200, 120],
])('on a terminal of %d columns they fit %d, and nothing is cut off', (columns, fits) => {
  const text = terminal({ rows: all }, columns)
  expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(fits)
  const words = text.split(/\s+/)
  for (const { name, recovery, manual } of modes)
    expect(words).toEqual(
      expect.arrayContaining(`${name} ${recovery} ${manual}`.split(' ').filter((w) => w !== 'none')),
    )
})

test('the runbook gets the tables between its marks, and keeps all else', async () => {
  folder = mkdtempSync(join(tmpdir(), 'drill-'))
  const file = join(folder, 'runbook.md')
  writeFileSync(file, 'before\n<!-- drill:begin -->\nold\n<!-- drill:end -->\nafter\n')
  await writeRunbook(file, report(rows))
  const written = `before\n<!-- drill:begin -->\n${generated(report(rows))}<!-- drill:end -->\nafter\n`
  expect(readFileSync(file, 'utf8')).toBe(written)
  writeFileSync(file, 'no marks')
  await expect(writeRunbook(file, report(rows))).rejects.toMatchObject({ code: 'NoMarks' })
  expect(readFileSync(file, 'utf8')).toBe('no marks')
})

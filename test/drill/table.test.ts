import { expect, test } from 'vitest'
import { type Row, table } from '../../src/drill/run.ts'

const rows: readonly Row[] = [
  { mode: 'quick', outcome: { detectedMs: 12.4, recoveredMs: 1_250, recovery: 'by itself', manual: 'none' } },
  { mode: 'by hand', outcome: { recovery: 'none', manual: 'turn it on' } },
  { mode: 'broken', error: 'not within 5 s: a|b' },
]

test('the table tells what was measured, what was not, and what failed', () => {
  expect(table(rows).split('\n')).toEqual([
    '| failure mode | detection time | automatic recovery | manual steps |',
    '|---|---|---|---|',
    '| quick | 12 ms | 1.3 s: by itself | none |',
    '| by hand | – (nothing runs that could notice) | none | turn it on |',
    '| broken | – | FAILED: not within 5 s: a/b | – |',
  ])
})

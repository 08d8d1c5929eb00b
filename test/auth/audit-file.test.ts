import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { auditFile } from '../../src/auth/audit-file.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pvaudit-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const numbersIn = (file: string) =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { n: number }).n)
const upTo = (count: number) => Array.from({ length: count }, (_, n) => n)

it('writes records in their order, for its owner only, and goes on in a new file when the old one is moved', async () => {
  const file = join(dir, 'audit.log')
  const log = auditFile(file, (error) => {
    throw error
  })
  for (const n of upTo(500)) log.record({ n })
  await log.flush()
  expect(numbersIn(file)).toEqual(upTo(500))
  expect(statSync(file).mode & 0o777).toBe(0o600)
  renameSync(file, `${file}.1`)
  log.record({ n: 7 })
  await log.flush()
  expect(numbersIn(file)).toEqual([7])
  expect(numbersIn(`${file}.1`)).toEqual(upTo(500))
  rmSync(file)
  log.record({ n: 8 })
  await log.flush()
  expect(numbersIn(file)).toEqual([8])
  await log.close()
})

it('is one of the open files of its process, and none once it is closed', async () => {
  const file = join(dir, 'audit.log')
  const times = () => readdirSync('/proc/self/fd').filter((fd) => targetOf(fd).startsWith(file)).length
  const log = auditFile(
    file,
    (error) => {
      throw error
    },
    { maxBytes: 50, keep: 2 },
  )
  for (const n of upTo(20)) {
    log.record({ n })
    await log.flush()
    expect(times()).toBe(1)
  }
  await log.close()
  expect(times()).toBe(0)
})

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return ''
  }
}

it('tells what could not be written, and goes on', async () => {
  const told: number[] = []
  const log = auditFile(join(dir, 'no', 'audit.log'), (_, records) => told.push(records))
  log.record({ n: 0 })
  await log.flush()
  log.record({ n: 1 })
  log.record({ n: 2 })
  await log.flush()
  expect(told.reduce((sum, count) => sum + count, 0)).toBe(3)
})

it('keeps no more in memory than it may, and tells how many records that cost', async () => {
  const told: number[] = []
  const file = join(dir, 'audit.log')
  const log = auditFile(file, (_, records) => told.push(records))
  const large = 'x'.repeat(1_000_000)
  for (const n of upTo(40)) log.record({ n, large })
  await log.flush()
  const lost = told.reduce((sum, count) => sum + count, 0)
  expect(lost).toBeGreaterThan(0)
  expect(numbersIn(file)).toHaveLength(40 - lost)
})

it('puts a large file aside, keeps so many, and loses no record on the way', async () => {
  const file = join(dir, 'audit.log')
  const errors: unknown[] = []
  const log = auditFile(file, (error) => errors.push(error), { maxBytes: 100, keep: 3 })
  for (const n of upTo(60)) {
    log.record({ n })
    await log.flush()
  }
  expect(errors).toEqual([])
  expect(readdirSync(dir).sort()).toEqual(['audit.log', 'audit.log.1', 'audit.log.2', 'audit.log.3'])
  const kept = ['.3', '.2', '.1', ''].flatMap((end) => numbersIn(`${file}${end}`))
  expect(kept).toEqual(upTo(60).slice(-kept.length))
  expect(kept.length).toBeGreaterThan(30)
  for (const end of ['.1', '.2', '.3']) expect(statSync(`${file}${end}`).size).toBeLessThan(120)
})

it('writes on where it can put nothing aside, and says so', async () => {
  const file = join(dir, 'audit.log')
  const told: number[] = []
  mkdirSync(join(`${file}.1`, 'in the way'), { recursive: true })
  mkdirSync(join(`${file}.2`, 'in the way'), { recursive: true })
  const log = auditFile(file, (_, records) => told.push(records), { maxBytes: 10, keep: 2 })
  for (const n of upTo(5)) {
    log.record({ n })
    await log.flush()
  }
  expect(numbersIn(file)).toEqual(upTo(5))
  expect(told).toEqual([0, 0, 0])
})

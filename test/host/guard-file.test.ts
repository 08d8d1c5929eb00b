import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  agentLives,
  type GuardRecord,
  guardFile,
  ownIdentity,
  readGuardRecord,
  readTenure,
  writeAgentSign,
  writeGuardRecord,
} from '../../src/host/guard-file.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

let runDir: string
let clock: VirtualClock
const self = ownIdentity()

beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), 'pvg-'))
  clock = new VirtualClock()
})
afterEach(() => rmSync(runDir, { recursive: true }))

const record = (more: Partial<GuardRecord> = {}): GuardRecord => ({
  ...{ version: 1, ...self, host: 'a', program: 'p', epoch: 3, held: true, sentAt: 0, deadlineMs: 6_000 },
  ...{ stopAt: 6_000, fencing: false, aliveAt: 0, why: 'it is held' },
  promises: [{ members: ['a', 'b'], deadlineMs: 6_000, suspended: false }],
  ...more,
})
const tenure = () => readTenure(runDir, { clock })

describe('what the guard tells', () => {
  test('holds until its deadline, counted from when the renewal was sent, and not a millisecond longer', async () => {
    writeGuardRecord(runDir, record())
    expect(tenure()).toEqual({ state: 'held', epoch: 3, leftMs: 6_000 })
    await clock.advance(5_999)
    expect(tenure()).toEqual({ state: 'held', epoch: 3, leftMs: 1 })
    await clock.advance(1)
    expect(tenure()).toEqual({ state: 'lost', why: 'the lease of this host was not renewed for 6 s' })
  })

  test.each<[string, Partial<GuardRecord>, RegExp]>([
    ['of another boot', { bootId: 'another' }, /since this host was booted/],
    ['of a guard that has ended', { startTime: self.startTime - 1 }, /process \d+, has ended/],
    ['of a pid that nobody has', { pid: 4_194_303 }, /process 4194303, has ended/],
    ['that says it is not held', { held: false, why: 'taken' }, /^taken$/],
    ['of one that stops machines', { fencing: true, why: 'stopping' }, /^stopping$/],
    ['without a renewal', { sentAt: undefined, why: 'never renewed' }, /^never renewed$/],
  ])('%s is no tenure', (_, more, why) => {
    writeGuardRecord(runDir, record(more))
    expect(tenure()).toEqual({ state: 'lost', why: expect.stringMatching(why) })
  })

  test('missing or broken it is no tenure either', () => {
    expect(tenure()).toEqual({ state: 'lost', why: expect.stringMatching(/guard\.json: there is none/) })
    for (const text of ['', '{', '{"version":2}', '[]', 'null']) {
      writeFileSync(guardFile(runDir), text)
      expect(tenure()).toMatchObject({ state: 'lost' })
      expect(readGuardRecord(runDir, self.bootId)).toBeUndefined()
    }
  })

  test('is there for the next guard, of the same boot only, and leaves no other file', () => {
    writeGuardRecord(runDir, record({ startTime: 1 }))
    expect(readGuardRecord(runDir, self.bootId)).toEqual(record({ startTime: 1 }))
    expect(readGuardRecord(runDir, 'another')).toBeUndefined()
    expect(readdirSync(runDir)).toEqual(['guard.json'])
  })
})

test('the agent is alive for as long after its sign as is asked for', async () => {
  const alive = (bootId = self.bootId) =>
    agentLives(runDir, { bootId, withinMs: 3_000, now: clock.elapsed() })
  expect(alive()).toBe(false)
  writeAgentSign(runDir, self, clock)
  expect(alive()).toBe(true)
  expect(alive('another')).toBe(false)
  await clock.advance(3_000)
  expect(alive()).toBe(false)
})

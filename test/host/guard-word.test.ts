import { describe, expect, test } from 'vitest'
import type { GuardRecord } from '../../src/host/guard-file.ts'
import { type GuardHost, guardNews } from '../../src/host/guard-word.ts'

const now = 100_000
const told: GuardRecord = {
  ...{ version: 1, pid: 7, startTime: 1, bootId: 'b', host: 'a', program: 'p', epoch: 1, held: true },
  ...{ sentAt: now - 1_000, deadlineMs: 6_000, fencing: false, promises: [], aliveAt: now - 100 },
  ...{ why: 'the lease is held', standing: 'held', agent: 'alive' },
}
const here: GuardHost = { bootId: 'b', now, lives: () => true, stuckMs: 3_000, lastWords: '' }
const cutOff = { held: false, fencing: true, standing: 'stopping', why: 'this host is cut off' } as const

describe('what is said of a guard', () => {
  test.each<[string, GuardRecord | undefined, Partial<GuardHost>, string, RegExp]>([
    ['that holds the lease', told, {}, 'True/LeaseHeld', /^$/],
    [
      'of another version that holds it',
      { ...told, standing: undefined, agent: undefined },
      {},
      'True/LeaseHeld',
      /^$/,
    ],
    ['that is none', undefined, { lastWords: 'exit code 1' }, 'False/GuardMissing', /\(exit code 1\)/],
    ['that has ended', told, { lives: () => false }, 'False/GuardEnded', /starts another/],
    ['that hangs', { ...told, aliveAt: now - 3_000 }, {}, 'False/GuardSilent', /process 7,.*replaces it/],
    [
      'that hangs, and whose work is done',
      { ...told, aliveAt: 0 },
      { acting: 'this server stops its machines: web lives' },
      'False/GuardSilent',
      /replaces it; this server stops its machines: web lives$/,
    ],
    [
      'that stops machines',
      { ...told, ...cutOff, waits: 'web (pid 12) is not gone' },
      {},
      'False/Stopping',
      /^this host is cut off; web \(pid 12\) is not gone$/,
    ],
    [
      'of another version that does not say how it stands',
      { ...told, ...cutOff, standing: undefined },
      {},
      'False/LeaseLost',
      /^this host is cut off$/,
    ],
    [
      'whose deadline has passed since it wrote that it holds the lease',
      { ...told, sentAt: now - 6_000 },
      {},
      'False/LeaseLost',
      /^the lease was not renewed in time$/,
    ],
    ['of another boot', { ...told, bootId: 'x' }, {}, 'False/LeaseLost', /./],
  ])('%s', (_what, record, more, word, message) => {
    const { guarded } = guardNews(record, { ...here, ...more })
    expect(`${guarded.status}/${guarded.reason}`).toBe(word)
    expect(guarded.message).toMatch(message)
    expect(guarded.type).toBe('Guarded')
  })

  test('does not change with the time alone, so that it is not written again and again', () => {
    const record = { ...told, ...cutOff, waits: 'web (pid 12) is not gone' }
    const later = { ...record, aliveAt: now + 60_000 }
    expect(guardNews(later, { ...here, now: now + 60_100 })).toEqual(guardNews(record, here))
  })

  test('tells what the lease says of the agent, where that is known', () => {
    expect(guardNews({ ...told, agent: 'silent' }, here).agent).toBe('silent')
    expect(guardNews(undefined, here)).not.toHaveProperty('agent')
  })
})

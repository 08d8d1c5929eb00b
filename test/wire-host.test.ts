import { beforeEach, describe, expect, test } from 'vitest'
import type { GuardNews } from '../src/host/guard-word.ts'
import type { Tenure } from '../src/host/ports.ts'
import type { Host } from '../src/resources/kinds.ts'
import { watchOwnHost } from '../src/wire-host.ts'

const told = (agent: 'alive' | 'silent'): GuardNews => ({
  guarded: { type: 'Guarded', status: 'True', reason: 'LeaseHeld', message: '' },
  agent,
})
const hostThatSays = (...conditions: [type: string, status: string][]): Host =>
  ({
    metadata: { name: 'a' },
    status: { conditions: conditions.map(([type, status]) => ({ type, status })) },
  }) as unknown as Host

let tenure: Tenure
let news: GuardNews
let looks: number
let changed: (key: string, host: Host | undefined) => void
let hear: () => void

beforeEach(() => {
  tenure = { state: 'held', epoch: 1, leftMs: 5_000 }
  news = told('alive')
  looks = 0
  watchOwnHost(
    {
      hostName: 'a',
      hosts: {
        onChange: (listener) => {
          changed = listener
          return () => false
        },
      },
      guard: {
        tenure: () => tenure,
        news: () => news,
        onNews: (listener) => {
          hear = listener
        },
      },
    },
    () => {
      looks += 1
    },
  )
})

describe('a host looks at its own object', () => {
  test('when its guard has news', () => {
    hear()
    expect(looks).toBe(1)
  })

  test.each<[string, Host, number]>([
    ['says that its lease or its agent is silent', hostThatSays(['Ready', 'Unknown']), 1],
    ['says that nobody knows of its guard', hostThatSays(['Ready', 'True'], ['Guarded', 'Unknown']), 1],
    ['says what it has said itself', hostThatSays(['Ready', 'False'], ['Guarded', 'True']), 0],
    ['is told of as not fenced', hostThatSays(['Ready', 'True'], ['Fenced', 'Unknown']), 0],
    ["is another's", { ...hostThatSays(['Ready', 'Unknown']), metadata: { name: 'b' } }, 0],
  ])('when it %s', (_what, host, times) => {
    changed('a', host)
    expect(looks).toBe(times)
  })

  test('not while the lease says so too: the leader is right then', () => {
    news = told('silent')
    changed('a', hostThatSays(['Ready', 'Unknown']))
    ;[news, tenure] = [told('alive'), { state: 'lost', why: 'x' }]
    changed('a', hostThatSays(['Ready', 'Unknown']))
    changed('a', undefined)
    expect(looks).toBe(0)
  })
})

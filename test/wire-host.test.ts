import { expect, test } from 'vitest'
import type { Tenure } from '../src/host/ports.ts'
import { watchTenure } from '../src/wire-host.ts'
import { VirtualClock } from './fakes/virtual-clock.ts'

test('a lease that is lost, held again or of another epoch is told once; a renewal is not', async () => {
  const clock = new VirtualClock()
  const stop = new AbortController()
  let tenure: Tenure = { state: 'lost', why: 'no guard yet' }
  let told = 0
  const watching = watchTenure(
    () => tenure,
    () => (told += 1),
    clock,
    stop.signal,
  )
  const after = async (next: Tenure) => {
    tenure = next
    await clock.advance(3_000)
    return told
  }
  expect(await after({ state: 'held', epoch: 1, leftMs: 5_000 })).toBe(1)
  expect(await after({ state: 'held', epoch: 1, leftMs: 4_000 })).toBe(1)
  expect(await after({ state: 'held', epoch: 2, leftMs: 4_000 })).toBe(2)
  expect(await after({ state: 'lost', why: 'silent' })).toBe(3)
  expect(await after({ state: 'lost', why: 'silent for longer' })).toBe(3)
  stop.abort()
  await watching
})

import { expect, test } from 'vitest'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import { alive, condition, now, planOf, recorded, runningMachine, time, verbs } from './fixture.ts'

const power = { power: { strategy: 'Always' as const, desired: 'Up' as const } }

/** Plans until nothing is left to wait for at `at`. @returns the machine as recorded, and what was done */
function pass(vm: VirtualMachine, state: 'io-error' | 'running', at: number) {
  const next = planOf(vm, alive(state), {}, at)
  return { vm: recorded(vm, next), next, done: verbs(next) }
}

test('a disk that keeps failing is resumed ever more seldom, at most every minute', () => {
  let vm = runningMachine({}, power)
  let at = now
  const waits: number[] = []
  for (let i = 0; i < 8; i++) {
    const first = pass(vm, 'io-error', at)
    expect(first.done).toEqual([])
    expect(first.next.status).toMatchObject({ phase: 'Paused', reason: 'IOError' })
    expect(condition(first.next, 'Ready')?.status).toBe('False')
    const wait = first.next.recheckMs ?? 0
    waits.push(wait / 1_000)
    at += wait
    const second = pass(first.vm, 'io-error', at)
    expect(second.done).toEqual(['resume'])
    // It runs for a moment, which is no success.
    vm = pass(second.vm, 'running', at).vm
  }
  expect(waits).toEqual([5, 10, 20, 40, 60, 60, 60, 60])
})

test('a while without an error clears the count', () => {
  const vm = runningMachine({}, { ...power, ioError: { retries: 5, retryAt: time() } })
  expect(pass(vm, 'running', now + 59_000).vm.status?.ioError?.retries).toBe(5)
  expect(pass(vm, 'running', now + 60_000).vm.status?.ioError).toBeUndefined()
})

test('a wall clock that was set back by more than the wait ends it', () => {
  const vm = (retryInMs: number) =>
    runningMachine({}, { ...power, ioError: { retries: 2, retryAt: time(retryInMs) } })
  expect(pass(vm(3_600_000), 'io-error', now).done).toEqual(['resume'])
  expect(pass(vm(10_000), 'io-error', now)).toMatchObject({ done: [], next: { recheckMs: 10_000 } })
  expect(pass(vm(3_600_000), 'running', now).vm.status?.ioError).toBeUndefined()
})

test('a machine that a person paused is not resumed by the back-off', () => {
  const held = { ...power, pausedByUser: true, ioError: { retries: 1, retryAt: time(-1_000) } }
  expect(pass(runningMachine({}, held), 'io-error', now).done).toEqual([])
})

test('one event tells of it, until it ran again', () => {
  const first = pass(runningMachine({}, power), 'io-error', now)
  expect(first.next.happenings).toMatchObject([{ type: 'Warning', reason: 'IOError' }])
  expect(pass(first.vm, 'io-error', now + 1_000).next.happenings).toEqual([])
})

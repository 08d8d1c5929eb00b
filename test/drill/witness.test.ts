import { afterEach, expect, test } from 'vitest'
import type { Qemu } from '../../src/drill/qemus.ts'
import { Witness } from '../../src/drill/witness.ts'

let witness: Witness | undefined
afterEach(() => void witness?.close())

const qemu = (pid: number, uid: string): Qemu => ({ pid, uid, startTime: 1, state: 'S', argv: [] })

test('twins are told once, however often they are seen, and not again for the next mode', () => {
  let found = [[qemu(1, 'a'), qemu(2, 'a')]]
  witness = new Witness('/nowhere', () => found)
  witness.look()
  expect(witness.takeTwins()).toEqual([{ uid: 'a', pids: [1, 2] }])
  found = []
  expect(witness.takeTwins()).toEqual([])
  expect(witness.close().looks).toBeGreaterThanOrEqual(3)
})

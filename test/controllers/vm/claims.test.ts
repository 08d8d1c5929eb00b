import { describe, expect, test } from 'vitest'
import { claimAfter, diskClaimOf } from '../../../src/controllers/vm/claims.ts'
import type { PlasmaError } from '../../../src/lib/errors.ts'
import type { VirtualMachine, VmStatus } from '../../../src/resources/vm.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { machine, process, time } from './fixture.ts'

const nbd = (host: string, more: object = {}) => ({
  ...{ name: 'root', format: 'raw', nbd: { host, exportName: 'x' } },
  ...more,
})
const path = (more: object = {}) => ({ name: 'root', path: '/srv/x', ...more })

/** A machine with one disk; the lower its age, the older it is. */
function owner(name: string, age: number, disk: object, status: Partial<VmStatus> = {}): VirtualMachine {
  return machine({ disks: [disk] }, status, { name, uid: name, creationTimestamp: time(age * 1_000) })
}

const launch = { id: 'l-1', at: time(), bootId: 'boot-1' }
const key = 'nas:10809/x'
/** Who keeps the younger machine `b` from its disk. */
const by = (b: VirtualMachine, ...others: VirtualMachine[]) => diskClaimOf(b, () => [b, ...others])?.by

describe.each([
  ['path', path, path()],
  ['export', (more?: object) => nbd('NAS.', more), nbd('nas')],
])('of two machines that write to one %s', (_what, disk, same) => {
  test('the older has it', () => {
    const [a, b] = [owner('a', 0, disk()), owner('b', 1, same)]
    expect([by(a, b), by(b, a)]).toEqual([undefined, 'default/a'])
  })

  test.each([
    ['runs', { process }],
    ['is being launched', { launch }],
  ])('the one that %s has it', (_how, status) => {
    const [a, b] = [owner('a', 0, disk()), owner('b', 1, same, status)]
    expect(by(a, b)).toBe('default/b')
  })

  test('one that only reads takes it from nobody', () => {
    const [a, b] = [owner('a', 0, disk({ readOnly: true })), owner('b', 1, same)]
    expect([by(a, b), by(b, a)]).toEqual([undefined, undefined])
  })
})

test('other exports are no matter', () => {
  const [a, b] = [
    owner('a', 0, nbd('nas')),
    owner('b', 1, nbd('nas', { nbd: { host: 'nas', exportName: 'y' } })),
  ]
  expect(by(b, a)).toBeUndefined()
})

test.each([
  ['runs', { process }, 'default/b'],
  ['is being launched', { launch }, 'default/b'],
  ['ran', {}, undefined],
])('a machine that %s with an export has it whatever its spec says by now', (_what, status, claimed) => {
  const [a, b] = [owner('a', 0, nbd('nas')), owner('b', 1, nbd('elsewhere'), { ...status, exports: [key] })]
  expect(by(a, b)).toBe(claimed)
})

test('the field, the export and the other machine are told', () => {
  const [a, b] = [owner('a', 0, nbd('nas')), owner('b', 1, nbd('NAS'))]
  expect(diskClaimOf(b, () => [a])).toEqual({ by: 'default/a', field: 'spec.disks[0].nbd', path: key })
})

describe('launches on two hosts at one moment', () => {
  /** The writes of a store in order: both machines are declared, then each host records a launch. */
  function history(first: 'a' | 'b'): VirtualMachine[] {
    const before = { a: owner('a', 0, nbd('elsewhere')), b: owner('b', 1, nbd('nas')) }
    // The older one's spec came to name the export only after the younger one's host had looked.
    const declared = owner('a', 0, nbd('nas'))
    const launching = (vm: VirtualMachine) => ({ ...vm, status: { ...vm.status!, launch, exports: [key] } })
    const launches = { a: launching(declared), b: launching(before.b) }
    const second = first === 'a' ? 'b' : 'a'
    return [before.a, before.b, declared, launches[first], launches[second]]
  }

  /** What a copy that has heard of the first `count` writes holds. */
  function copyOf(writes: readonly VirtualMachine[], count: number): readonly VirtualMachine[] {
    return [...new Map(writes.slice(0, count).map((vm) => [vm.metadata.uid, vm])).values()]
  }

  test.each(['a', 'b'] as const)(
    'never both go on, with %s recorded first, however late each copy is',
    (first) => {
      const writes = history(first)
      const own = (name: string) => writes.findLastIndex(({ metadata }) => metadata.name === name) + 1
      for (let ofA = own('a'); ofA <= writes.length; ofA++)
        for (let ofB = own('b'); ofB <= writes.length; ofB++) {
          const goes = (name: string, count: number) =>
            diskClaimOf(writes[own(name) - 1]!, () => copyOf(writes, count)) === undefined
          expect(goes('a', ofA) && goes('b', ofB), `${ofA} ${ofB}`).toBe(false)
        }
    },
  )

  test('a host waits until its copy shows its own launch, and judges by that', async () => {
    const [stale, other] = [owner('a', 0, nbd('nas')), owner('b', 1, nbd('nas'), { launch, exports: [key] })]
    const shown = owner('a', 0, nbd('nas'), { launch: { ...launch, id: 'l-2' }, exports: [key] })
    const listeners = new Set<(key: string, vm: VirtualMachine | undefined) => void>()
    let copy: VirtualMachine[] = [stale]
    const vms = {
      get: () => copy[0],
      list: () => copy,
      onChange: (listener: (key: string, vm: VirtualMachine | undefined) => void) => {
        listeners.add(listener)
        return () => void listeners.delete(listener)
      },
    }
    let result: unknown = 'waits'
    const asked = claimAfter(shown, 'l-2', vms, new VirtualClock()).then((claim) => {
      result = claim?.by
    })
    for (const listener of [...listeners]) listener('default/a', undefined)
    await new Promise((done) => setImmediate(done))
    expect(result).toBe('waits')
    copy = [shown, other]
    for (const listener of [...listeners]) listener('default/a', undefined)
    await asked
    expect(result).toBe('default/b')
    expect(listeners.size).toBe(0)
  })

  test('a copy that does not get so far is no permission', async () => {
    const clock = new VirtualClock()
    const vms = { get: () => undefined, list: () => [], onChange: () => () => {} }
    const asked = claimAfter(owner('a', 0, nbd('nas')), 'l-2', vms, clock).catch(
      (error: PlasmaError) => error.code,
    )
    await clock.advance(60_000)
    expect(await asked).toBe('ClaimsUnknown')
  })
})

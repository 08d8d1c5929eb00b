import { describe, expect, test } from 'vitest'
import { withDefaults } from '../../src/resources/parse.ts'
import { misunderstood, understood, unknownMembers } from '../../src/resources/understood.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

const stored = (spec: unknown, status: unknown = undefined) =>
  withDefaults(VirtualMachine, {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine' },
    metadata: { name: 'web', namespace: 'default' },
    ...{ spec, ...(status !== undefined && { status }) },
  } as unknown as VirtualMachine)
const plain = stored({})

describe('an object that is not valid here', () => {
  test('is shown as it was stored, and says what is wrong', () => {
    const vm = stored({ runStrategy: 'Nightly', cpu: { cores: 2 } })
    expect(vm.spec).toEqual({ runStrategy: 'Nightly', cpu: { cores: 2 } })
    expect(misunderstood(vm)).toMatch(/^spec\.runStrategy: /)
  })

  test.each<[string, unknown, object]>([
    ['a member', { runStrategy: 'Nightly', priority: 7 }, { ...plain.spec, priority: 7 }],
    ['a list', { disks: [{ name: 'a', bus: 'quantum' }], priority: 7 }, { ...plain.spec, priority: 7 }],
    ['all', 'small', plain.spec],
  ])('counts as its defaults where it is wrong: %s', (_, spec, expected) => {
    const vm = understood(VirtualMachine, stored(spec))
    expect(vm.spec).toEqual(expected)
    expect(misunderstood(vm)).toBeDefined()
  })

  test('has the status that was stored, as what may run is known from that', () => {
    const status = { phase: 'Dreaming', process: { pid: 'many' }, hostName: 'a' }
    expect(understood(VirtualMachine, stored({}, status)).status).toEqual(status)
  })
})

test('a valid object is the very same', () => {
  expect(misunderstood(plain)).toBeUndefined()
  expect(understood(VirtualMachine, plain)).toBe(plain)
})

test('members of a status that only another version knows are found', () => {
  expect(unknownMembers(VirtualMachine, { phase: 'Running', weather: 'fine' })).toEqual({ weather: 'fine' })
  expect(unknownMembers(VirtualMachine, undefined)).toEqual({})
})

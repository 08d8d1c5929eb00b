import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parse, withDefaults, withoutDefaults } from '../../src/resources/parse.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

const head = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata: { name: 'a' } }
const vm = (spec: unknown) => ({ ...head, spec })

function causesOf(doc: unknown) {
  const parsed = parse(VirtualMachine, doc)
  return parsed.ok ? [] : parsed.causes.map(({ reason, field }) => `${reason} ${field}`)
}

function accepted(doc: unknown) {
  const parsed = parse(VirtualMachine, doc)
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.causes))
  return parsed
}

describe('parse', () => {
  it.each<[string, unknown]>([
    ['nothing but a name', head],
    ['a blank disk', vm({ disks: [{ name: 'a', size: '1Gi' }] })],
    ['a size in bytes', vm({ disks: [{ name: 'a', size: 1048576 }], memory: 1 << 30 })],
    ['a fraction', vm({ memory: '1.5Gi' })],
    ['as much as there is', vm({ disks: [{ name: 'a', size: '7999Pi' }], memory: '7Ei' })],
    ['a disk of nothing', vm({ disks: [{ name: 'a', size: 0 }] })],
    ['a null, which says nothing', vm({ kernel: null })],
  ])('accepts %s', (_, doc) => {
    expect(causesOf(doc)).toEqual([])
  })

  it.each<[string, unknown, string[]]>([
    ['a text', 'x', ['FieldValueTypeInvalid ']],
    ['another version', { ...head, apiVersion: 'v1' }, ['FieldValueInvalid apiVersion']],
    ['no kind', { ...head, kind: undefined }, ['FieldValueRequired kind']],
    ['a bad label', { ...head, metadata: { labels: { a: 1 } } }, ['FieldValueTypeInvalid metadata.labels.a']],
    ['a name left out', vm({ disks: [{ size: '1Gi' }] }), ['FieldValueRequired spec.disks[0].name']],
    ['an unknown choice', vm({ runStrategy: 'Sometimes' }), ['FieldValueNotSupported spec.runStrategy']],
    ['a text for a number', vm({ cpu: { cores: '2' } }), ['FieldValueTypeInvalid spec.cpu.cores']],
    ['too many cores', vm({ cpu: { cores: 256 } }), ['FieldValueInvalid spec.cpu.cores']],
    ['no quantity', vm({ memory: '1 GB' }), ['FieldValueInvalid spec.memory']],
    ['more than there is', vm({ memory: '8Ei' }), ['FieldValueInvalid spec.memory']],
    ['a number with a fraction', vm({ memory: 1048576.5 }), ['FieldValueInvalid spec.memory']],
    ['too little memory', vm({ memory: '1Ki' }), ['FieldValueInvalid spec.memory']],
    ['a blank disk without size', vm({ disks: [{ name: 'a' }] }), ['FieldValueRequired spec.disks[0].size']],
    [
      'a name used twice',
      vm({ networks: [{ name: 'a' }, { name: 'a' }] }),
      ['FieldValueDuplicate spec.networks[1].name'],
    ],
    [
      'image and path',
      vm({ disks: [{ name: 'a', path: '/a', image: { source: 'b' } }] }),
      ['FieldValueInvalid spec.disks[0].path'],
    ],
  ])('refuses %s', (_, doc, causes) => {
    expect(causesOf(doc)).toEqual(causes)
  })

  it("says it in Kubernetes' words", () => {
    const parsed = parse(VirtualMachine, vm({ machine: 'vax', cpu: { cores: 'x' } }))
    expect(parsed.ok ? [] : parsed.causes.map((cause) => cause.message)).toEqual([
      'Invalid value: "x": must be an integer',
      'Unsupported value: "vax": supported values: "q35", "pc", "microvm"',
    ])
  })

  it('keeps what was written and names what it does not know', () => {
    const parsed = accepted(vm({ dsks: [], disks: [{ name: 'a', size: '1Gi', colour: 'red' }] }))
    expect(parsed.unknown).toEqual(['spec.dsks', 'spec.disks[0].colour'])
    expect(parsed.stored).toEqual(vm({ disks: [{ name: 'a', size: '1Gi' }] }))
    expect(parsed.object.spec.disks[0]).toMatchObject({ bus: 'virtio', pool: 'default' })
  })

  it.each(['__proto__', 'constructor', 'prototype'])('is not poisoned by %s', (key) => {
    const doc = JSON.parse(`{"spec":{"${key}":{"polluted":1},"hostSelector":{"${key}":"x"}}}`)
    const parsed = accepted({ ...head, ...doc })
    expect(Object.hasOwn(parsed.stored.spec, key)).toBe(false)
    // In a map these are names like any other, but for the one that code could take for the prototype.
    expect(Object.hasOwn(parsed.object.spec.hostSelector, key)).toBe(key !== '__proto__')
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  })
})

const anySpec = fc.record(
  {
    runStrategy: fc.constantFrom('Always', 'Halted', 'Manual'),
    cpu: fc.record(
      { cores: fc.integer({ min: 1, max: 4 }), model: fc.constantFrom('max', 'host') },
      { requiredKeys: [] },
    ),
    memory: fc.constantFrom('512Mi', '1Gi', 1 << 30),
    disks: fc.uniqueArray(
      fc.record(
        {
          name: fc.constantFrom('a', 'b', 'c'),
          size: fc.constant('1Gi'),
          bus: fc.constantFrom('virtio', 'sata'),
        },
        { requiredKeys: ['name', 'size'] },
      ),
      { selector: (disk) => disk.name },
    ),
    devices: fc.record({ vnc: fc.boolean(), watchdog: fc.constant({}) }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
)

describe('defaults', () => {
  it('leave no trace when an object is read and written back', () => {
    fc.assert(
      fc.property(anySpec, (spec) => {
        const { stored, object } = accepted(vm(spec))
        const defaulted = withDefaults(VirtualMachine, stored)
        expect(defaulted).toEqual(object)
        expect(withoutDefaults(VirtualMachine, defaulted, { stored, defaulted })).toEqual(stored)
      }),
    )
  })

  it('never lose what a writer says', () => {
    fc.assert(
      fc.property(anySpec, anySpec, (before, after) => {
        const { stored } = accepted(vm(before))
        const defaulted = withDefaults(VirtualMachine, stored)
        const next = accepted(vm(after))
        const kept = withoutDefaults(VirtualMachine, next.object, { stored, defaulted })
        expect(withDefaults(VirtualMachine, kept)).toEqual(next.object)
      }),
    )
  })

  it('keep a change beside them', () => {
    const { stored, object } = accepted(vm({ disks: [{ name: 'a', size: '1Gi' }] }))
    const next = structuredClone(object)
    next.spec.cpu.cores = 4
    next.spec.disks[0]!.cache = 'none'
    expect(withoutDefaults(VirtualMachine, next, { stored, defaulted: object }).spec).toEqual({
      cpu: { cores: 4 },
      disks: [{ name: 'a', size: '1Gi', cache: 'none' }],
    })
  })
})

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FieldSet, fromFieldsV1, pathText, toFieldsV1 } from '../../src/resources/merge/field-set.ts'
import { fieldTypeOf } from '../../src/resources/merge/field-type.ts'
import { changesBetween, FieldError, fieldsOf } from '../../src/resources/merge/fields.ts'
import {
  type Author,
  afterApply,
  afterUpdate,
  applied,
  conflictText,
  type Manager,
  ownedBy,
  readManagers,
  writeManagers,
} from '../../src/resources/merge/managers.ts'
import { merged } from '../../src/resources/merge/merge.ts'
import { same } from '../../src/resources/parse.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

const type = fieldTypeOf(VirtualMachine)
const at = '2026-01-01T00:00:00Z'
const by = (manager: string, operation: Author['operation'] = 'Apply'): Author => ({
  ...{ manager, operation, apiVersion: 'plasmavmc.io/v1alpha1' },
})
const paths = (set: FieldSet) => [...set.paths()].map(pathText).sort()
const vm = (spec: object, metadata: object = {}) => ({ metadata: { name: 'web', ...metadata }, spec })

interface State {
  readonly object: unknown
  readonly managers: readonly Manager[]
}
const fresh: State = { object: undefined, managers: [] }

/** Applies, by force or not. @returns the state after it, and the conflicts that there were */
function apply(state: State, manager: string, config: object, when = at) {
  const author = by(manager)
  const result = applied({
    ...{ type, live: state.object, config, author, at: when, managers: state.managers },
  })
  const { managers, conflicts } = afterApply(
    type,
    { before: state.object ?? {}, next: result.object },
    result,
  )
  return { object: result.object, managers, conflicts }
}

function update(state: State, manager: string, next: object): State {
  const author = by(manager, 'Update')
  const managers = afterUpdate(type, { before: state.object ?? {}, next, author, at }, state.managers)
  return { object: next, managers }
}

describe('fields', () => {
  test('are leaves, items of lists by their keys, and atomic lists as a whole', () => {
    const spec = {
      ...{ memory: '1Gi', cpu: { cores: 2 }, tolerations: [{ key: 'a' }], kernel: {} },
      disks: [{ name: 'root', size: '1Gi' }],
    }
    const metadata = { name: 'web', labels: { app: 'a' }, finalizers: ['x/y'], uid: 'u' }
    expect(paths(fieldsOf(type, { apiVersion: 'a', kind: 'b', ...vm(spec, metadata) }))).toEqual([
      '.metadata.finalizers[="x/y"]',
      '.metadata.labels.app',
      '.spec.cpu.cores',
      '.spec.disks[name="root"]',
      '.spec.disks[name="root"].name',
      '.spec.disks[name="root"].size',
      '.spec.kernel',
      '.spec.memory',
      '.spec.tolerations',
    ])
  })

  test('of an item without its key, or of two with the same, are none', () => {
    expect(() => fieldsOf(type, vm({ disks: [{ size: '1Gi' }] }))).toThrow(FieldError)
    const twice = vm({ disks: [{ name: 'a' }, { name: 'a' }] })
    expect(() => fieldsOf(type, twice)).toThrow('.spec.disks: duplicate entries for key {"name":"a"}')
  })

  test('changes are told apart', () => {
    const before = vm({ memory: '1Gi', disks: [{ name: 'a', size: '1Gi' }, { name: 'b' }] })
    const after = vm({ memory: '2Gi', machine: 'pc', disks: [{ name: 'a', size: '2Gi' }] })
    const { added, removed, modified } = changesBetween(type, before, after)
    expect(paths(added)).toEqual(['.spec.machine'])
    expect(paths(removed)).toEqual(['.spec.disks[name="b"]', '.spec.disks[name="b"].name'])
    expect(paths(modified)).toEqual(['.spec.disks[name="a"].size', '.spec.memory'])
  })

  test('are written as Kubernetes writes them', () => {
    const set = fieldsOf(type, vm({ disks: [{ name: 'a', size: '1Gi' }] }, { finalizers: ['x'] }))
    expect(toFieldsV1(set)).toEqual({
      'f:metadata': { 'f:finalizers': { 'v:"x"': {} } },
      'f:spec': { 'f:disks': { 'k:{"name":"a"}': { '.': {}, 'f:name': {}, 'f:size': {} } } },
    })
    expect(fromFieldsV1(toFieldsV1(set)).equals(set)).toBe(true)
    // However a client spaces the keys.
    const spaced = { 'f:spec': { 'f:disks': { 'k:{ "name" : "a" }': { '.': {} } } } }
    expect(paths(fromFieldsV1(spaced))).toEqual(['.spec.disks[name="a"]'])
    expect(() => fromFieldsV1({ 'x:spec': {} })).toThrow('no path element')
    expect(() => fromFieldsV1({ 'f:spec': 'all' })).toThrow('object of objects')
  })
})

describe('an apply', () => {
  const disk = (name: string, more: object = {}) => ({ name, ...more })

  test('takes out what its manager no longer says, and nothing of others', () => {
    const one = apply(fresh, 'one', vm({ memory: '1Gi', disks: [disk('a', { size: '1Gi' }), disk('b')] }))
    const two = apply(one, 'two', vm({ disks: [disk('a', { serial: 'X' }), disk('c')] }))
    const { object, conflicts } = apply(two, 'one', vm({ disks: [disk('b')] }))
    expect(conflicts).toEqual([])
    expect(object).toEqual(vm({ disks: [disk('a', { serial: 'X' }), disk('b'), disk('c')] }))
  })

  test('keeps what nobody owns, in an item that somebody does', () => {
    const state: State = {
      object: vm({ disks: [disk('a', { size: '1Gi' })] }),
      managers: [{ ...by('one'), time: at, fields: fieldsOf(type, vm({ disks: [disk('a')] })) }],
    }
    expect(apply(state, 'two', vm({ memory: '1Gi' })).object).toEqual(
      vm({ memory: '1Gi', disks: [disk('a', { size: '1Gi' })] }),
    )
  })

  test('conflicts where it would change what another owns; by force it takes that over', () => {
    const one = apply(fresh, 'one', vm({ memory: '1Gi', machine: 'pc' }))
    const two = apply(one, 'two', vm({ memory: '2Gi', machine: 'pc' }))
    expect(conflictText(two.conflicts)).toBe(
      'Apply failed with 1 conflict: conflict with "one": .spec.memory',
    )
    expect(paths(two.managers.find(({ manager }) => manager === 'one')?.fields ?? new FieldSet())).toEqual([
      '.spec.machine',
    ])
  })

  test('shares what it says with whoever says the same', () => {
    const one = apply(fresh, 'one', vm({ memory: '1Gi' }))
    const two = apply(one, 'two', vm({ memory: '1Gi' }))
    expect(two.conflicts).toEqual([])
    // One lets go; the other still has it.
    expect(apply(two, 'one', vm({})).object).toEqual(vm({ memory: '1Gi' }))
  })

  test('several conflicts are told by manager', () => {
    const one = apply(fresh, 'one', vm({ memory: '1Gi', machine: 'pc' }))
    const two = update(one, 'edit', vm({ memory: '1Gi', machine: 'pc', firmware: 'uefi' }))
    const { conflicts } = apply(two, 'three', vm({ memory: '2Gi', machine: 'q35', firmware: 'bios' }))
    expect(conflictText(conflicts)).toBe(
      [
        'Apply failed with 3 conflicts: conflicts with "one":',
        ...['- .spec.machine', '- .spec.memory'],
        `conflict with "edit" using plasmavmc.io/v1alpha1 at ${at}: .spec.firmware`,
      ].join('\n'),
    )
  })

  test('of what was never accounted for takes the rest as before-first-apply', () => {
    const state: State = { object: vm({ memory: '1Gi', machine: 'pc' }), managers: [] }
    const { conflicts } = apply(state, 'one', vm({ memory: '2Gi' }))
    expect(conflictText(conflicts)).toContain('"before-first-apply"')
  })

  test('conflicts with who claims what is not there', () => {
    const fields = fieldsOf(type, vm({ memory: '1Gi' }))
    const state: State = { object: vm({}), managers: [{ ...by('claimant'), time: at, fields }] }
    expect(apply(state, 'one', vm({ memory: '1Gi' })).conflicts).toHaveLength(1)
  })

  test('puts its items in its order, among those of others', () => {
    const live = vm({ disks: ['x', 'a', 'b', 'y'].map((name) => disk(name)) })
    const config = vm({ disks: ['b', 'new', 'a'].map((name) => disk(name)) })
    const names = (
      merged(type, live, config) as ReturnType<typeof vm> & { spec: { disks: { name: string }[] } }
    ).spec.disks
    expect(names.map(({ name }) => name)).toEqual(['x', 'b', 'new', 'a', 'y'])
  })
})

describe('an update', () => {
  test('takes what it changes from everybody, and what it removes is nobody’s', () => {
    const one = apply(fresh, 'one', vm({ memory: '1Gi', machine: 'pc', cpu: { cores: 1 } }))
    const two = update(one, 'edit', vm({ memory: '2Gi', machine: 'pc' }))
    const fields = Object.fromEntries(two.managers.map((one) => [one.manager, paths(one.fields)]))
    expect(fields).toEqual({ one: ['.spec.machine'], edit: ['.spec.memory'] })
  })

  test('that changes nothing changes no account', () => {
    const one = apply(fresh, 'one', vm({ memory: '1Gi' }))
    expect(update(one, 'edit', vm({ memory: '1Gi' })).managers).toEqual(one.managers)
  })

  test('authors of updates do not grow without bound', () => {
    let state: State = apply(fresh, 'one', vm({ memory: '1Gi' }))
    for (let i = 0; i < 30; i += 1)
      state = update(state, `editor-${i}`, vm({ memory: '1Gi' }, { labels: labels(i + 1) }))
    const names = state.managers.map(({ manager }) => manager)
    expect(names.filter((name) => name.startsWith('editor'))).toHaveLength(9)
    expect(names).toContain('ancient-changes')
    expect(paths(ownedBy(state.managers))).toHaveLength(31)
  })

  const labels = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`l${index}`, 'x']))
})

const size = fc.constantFrom('1Gi', '2Gi')
const config = fc.record(
  {
    memory: size,
    machine: fc.constantFrom('pc', 'q35'),
    cpu: fc.record({ cores: fc.constantFrom(1, 2), sockets: fc.constantFrom(1, 2) }, { requiredKeys: [] }),
    tolerations: fc.constantFrom([], [{ key: 'a' }], [{ key: 'b' }]),
    disks: fc.uniqueArray(
      fc.record(
        { name: fc.constantFrom('a', 'b', 'c'), size, serial: fc.constantFrom('x', 'y') },
        {
          requiredKeys: ['name'],
        },
      ),
      { selector: ({ name }) => name, maxLength: 3 },
    ),
  },
  { requiredKeys: [] },
)
const labels = fc.dictionary(fc.constantFrom('a', 'b'), fc.constantFrom('1', '2'))
const document = fc.tuple(config, labels).map(([spec, some]) => vm(spec, { labels: some }))
const history = fc.array(
  fc.oneof(
    fc.record({ do: fc.constant('apply' as const), by: fc.constantFrom('one', 'two', 'three'), document }),
    fc.record({ do: fc.constant('update' as const), by: fc.constantFrom('one', 'four'), document }),
  ),
  { maxLength: 8 },
)

function played(steps: typeof history extends fc.Arbitrary<infer T> ? T : never): State {
  return steps.reduce<State>(
    (state, step) =>
      step.do === 'apply' ? apply(state, step.by, step.document) : update(state, step.by, step.document),
    fresh,
  )
}

/** The value at every leaf of a set, by path. */
function valuesOf(object: unknown, set: FieldSet): Map<string, unknown> {
  const at = (value: unknown, element: string): unknown => {
    if (element.startsWith('f:')) return (value as Record<string, unknown> | undefined)?.[element.slice(2)]
    const { name } = JSON.parse(element.slice(2)) as { name: string }
    return (value as { name: string }[] | undefined)?.find((one) => one.name === name)
  }
  return new Map([...set.paths()].map((path) => [pathText(path), path.reduce<unknown>(at, object)]))
}

describe('whatever was done before', () => {
  test('an apply makes all that it says so, and owns exactly that', () => {
    fc.assert(
      fc.property(history, document, (steps, wanted) => {
        const state = apply(played(steps), 'one', wanted)
        const own = state.managers.find((one) => one.manager === 'one' && one.operation === 'Apply')
        const fields = fieldsOf(type, wanted)
        expect((own?.fields ?? new FieldSet()).equals(fields)).toBe(true)
        const [now, said] = [valuesOf(state.object, fields), valuesOf(wanted, fields)]
        for (const [path, value] of said)
          if (typeof value !== 'object') expect(now.get(path), path).toEqual(value)
      }),
      { numRuns: 2_000 },
    )
  })

  test('an apply without conflicts leaves what others own as it was', () => {
    fc.assert(
      fc.property(history, document, (steps, wanted) => {
        const before = played(steps)
        const { object, conflicts } = apply(before, 'one', wanted)
        const others = ownedBy(
          before.managers.filter((one) => one.manager !== 'one' || one.operation !== 'Apply'),
        )
        const lost = ownedBy(conflicts.map(({ manager, fields }) => ({ ...manager, fields })))
        const kept = others.minus(lost)
        const [old, now] = [valuesOf(before.object, kept), valuesOf(object, kept)]
        for (const [path, value] of old) {
          if (typeof value === 'object') expect(now.get(path), path).toBeDefined()
          else expect(now.get(path), path).toEqual(value)
        }
      }),
      { numRuns: 2_000 },
    )
  })

  test('the same apply again changes nothing', () => {
    fc.assert(
      fc.property(history, document, (steps, wanted) => {
        const once = apply(played(steps), 'one', wanted)
        const twice = apply(once, 'one', wanted, '2027-01-01T00:00:00Z')
        expect(twice.conflicts).toEqual([])
        expect(same(twice.object, once.object)).toBe(true)
        expect(writeManagers(twice.managers)).toEqual(writeManagers(once.managers))
      }),
      { numRuns: 2_000 },
    )
  })

  test('what somebody applies to nothing and takes back leaves nothing', () => {
    fc.assert(
      fc.property(document, document, (wanted, other) => {
        const base = apply(fresh, 'two', other)
        const { object } = apply(apply(base, 'one', wanted), 'one', { metadata: { name: 'web' } })
        const left = fieldsOf(type, object)
        // What was forced stays as it was forced: nobody else says it any more, or they said the same.
        expect(left.minus(fieldsOf(type, other)).empty, paths(left).join()).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })

  test('nobody owns what is not there, and the account reads as it was written', () => {
    fc.assert(
      fc.property(history, (steps) => {
        const { object, managers } = played(steps)
        for (const [path, value] of valuesOf(object, ownedBy(managers))) expect(value, path).toBeDefined()
        const entries = writeManagers(managers)
        expect(writeManagers(readManagers(JSON.parse(JSON.stringify(entries))))).toEqual(entries)
      }),
      { numRuns: 2_000 },
    )
  })
})

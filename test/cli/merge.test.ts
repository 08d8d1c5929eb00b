import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  applyMergePatch,
  isObject,
  type Json,
  type JsonObject,
  threeWayMergePatch,
} from '../../src/cli/merge.ts'

/** RFC 7386 section 2, as its pseudo-code says it; the oracle. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch
  const result: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {}
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name]
    else result[name] = mergePatch(result[name], value)
  }
  return result
}

const leaf = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.boolean(), fc.constantFrom('x', 'y'))
const { object: noNulls } = fc.letrec<{ value: Json; object: JsonObject }>((tie) => ({
  value: fc.oneof({ depthSize: 'small' }, leaf, fc.array(leaf, { maxLength: 2 }), tie('object')),
  object: fc.dictionary(fc.constantFrom('a', 'b', 'c', 'd'), tie('value'), { maxKeys: 4 }),
}))
const withNulls = fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.oneof(noNulls, leaf, fc.constant(null)))

/** Every leaf of `wanted` is in `found`. */
function holds(found: Json | undefined, wanted: Json): boolean {
  if (!isObject(wanted)) return JSON.stringify(found) === JSON.stringify(wanted)
  return isObject(found) && Object.entries(wanted).every(([k, v]) => v === undefined || holds(found[k], v))
}

describe('merge patch (RFC 7386)', () => {
  test.each([
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'foo' }, null, null],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ] as [Json, Json, Json][])('appendix A: %j with %j', (target, patch, result) => {
    expect(applyMergePatch(target, patch)).toEqual(result)
  })

  test('agrees with the pseudo-code of the RFC', () => {
    fc.assert(
      fc.property(noNulls, withNulls, (target, patch) => {
        expect(applyMergePatch(target, patch)).toEqual(mergePatch(target, patch))
      }),
    )
  })
})

describe('three-way merge', () => {
  const merged = (original: JsonObject | undefined, modified: JsonObject, current: JsonObject) =>
    applyMergePatch(current, threeWayMergePatch(original, modified, current)) as JsonObject

  test('what the manifest says holds afterwards, whatever was there', () => {
    fc.assert(fc.property(noNulls, noNulls, noNulls, (o, m, c) => holds(merged(o, m, c), m)))
  })

  test('applying the same again changes nothing', () => {
    fc.assert(
      fc.property(noNulls, noNulls, noNulls, (o, m, c) => {
        expect(threeWayMergePatch(m, m, merged(o, m, c))).toEqual({})
      }),
    )
  })

  test('what neither manifest mentions stays', () => {
    fc.assert(
      fc.property(noNulls, noNulls, fc.integer(), (o, m, value) => {
        expect(merged(o, m, { others: value })['others']).toBe(value)
      }),
    )
  })

  test('what the manifest lost goes', () => {
    expect(
      threeWayMergePatch({ a: 1, b: { c: 1, d: 2 } }, { b: { d: 2 } }, { a: 9, b: { c: 1, d: 2 } }),
    ).toEqual({
      a: null,
      b: { c: null },
    })
  })

  test('a null in a manifest is a field not mentioned', () => {
    expect(threeWayMergePatch(undefined, { a: null }, { a: 1 })).toEqual({})
  })

  test('a member called __proto__ is data', () => {
    const modified = JSON.parse('{"__proto__": {"x": 1}}') as JsonObject
    expect(JSON.stringify(applyMergePatch({}, modified))).toBe('{"__proto__":{"x":1}}')
    expect(({} as { x?: number }).x).toBeUndefined()
  })
})

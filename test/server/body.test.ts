import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseBody } from '../../src/server/body.ts'
import { duplicateKeys } from '../../src/server/duplicate-keys.ts'

const yaml = 'application/yaml'
const parse = (text: string | Buffer, type = 'application/json') => parseBody(Buffer.from(text), type)
const refused = (message: RegExp, reason = 'BadRequest') =>
  expect.objectContaining({ reason, message: expect.stringMatching(message) })

describe('duplicate keys', () => {
  it.each([
    ['{}', []],
    ['{"a":1,"b":1}', []],
    ['{"a":1,"a":2}', ['a']],
    ['{"a":{"b":1,"c":2,"b":3},"b":1}', ['a.b']],
    ['[{"a":1},{"a":1,"a":1}]', ['[1].a']],
    ['{"a":[[{"x":1}],[{"x":1,"x":{"y":1,"y":2}}]]}', ['a[1][0].x', 'a[1][0].x.y']],
    ['{"a":"a","b":":,{}[]\\"","c":{"a":["a","a"]}}', []],
    ['{"\\u0061":1,"a":2}', ['a']],
    ['{"":1,"":2}', ['']],
    ['{"__proto__":1,"constructor":1}', []],
    [`[${'{"a":1},'.repeat(100)}{}]`, []],
  ])('of %s are %j', (text, wanted) => {
    expect(duplicateKeys(text, JSON.parse(text))).toEqual(wanted)
  })

  it('are never seen where there are none, and always where one is put', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value, undefined, 1)
        for (const one of [text, JSON.stringify(value)]) {
          expect(duplicateKeys(one, value)).toEqual([])
          const twice = `{"x":${one},"x":${one}}`
          expect(duplicateKeys(twice, JSON.parse(twice))).toEqual(['x'])
        }
      }),
    )
  })
})

describe('a body', () => {
  it('of JSON is that, with what stands last where something stands twice', () => {
    expect(parse('{"a":1,"a":2}')).toEqual({ a: 2 })
    expect(parse('"x"')).toBe('x')
    expect(parse('')).toBeUndefined()
    expect(() => parse('{"a":')).toThrow(refused(/not JSON/))
    expect(() => parse('\ufeff{}')).not.toThrow()
    expect(() => parse(Buffer.from([0x22, 0xff, 0x22]))).toThrow(refused(/UTF-8/))
    expect(() => parse(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]))).toThrow(refused(/UTF-8/))
  })

  it('of YAML is that, and refused where a name stands twice', () => {
    expect(parse('a: 1\nb: [x, {c: d}]\n', yaml)).toEqual({ a: 1, b: ['x', { c: 'd' }] })
    expect(() => parse('a: 1\nb:\n  c: 1\n  c: 2\n', yaml)).toThrow(refused(/c.* line 4, column 3/))
    expect(() => parse('{a: 1, "a": 2}', yaml)).toThrow(refused(/twice/))
    expect(() => parse('a: 1\n---\nb: 1\n', yaml)).toThrow(refused(/not YAML/))
  })

  it('of YAML is bounded: its parser is slow', () => {
    expect(() => parse(`a: ${'x'.repeat(40_000)}`, yaml)).toThrow(refused(/JSON/, 'RequestEntityTooLarge'))
    for (const piece of ['[', '{a: ', '- ', '? ', '[{', 'a:\n ', '&a [', '"', '!!x ', '*a '])
      expect(() => parse(piece.repeat(30_000 / piece.length), yaml)).toThrow(refused(/./))
  })

  it('is no deeper than any manifest', () => {
    expect(parse(`${'['.repeat(90)}${']'.repeat(90)}`)).toBeDefined()
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      const deep = `${open.repeat(100_000)}1${close.repeat(100_000)}`
      expect(() => parse(deep)).toThrow(refused(/deep/))
    }
  })
})

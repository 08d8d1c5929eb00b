import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseSelector } from '../../src/store/labels.ts'

const labels = { a: 'b', tier: 'front', n: '10', 'x.io/y': '', empty: '', in: 'z' }

describe('label selectors', () => {
  it.each([
    ['', true],
    [' ', true],
    ['a', true],
    ['no', false],
    ['!no', true],
    ['! a', false],
    ['a=b', true],
    ['a==b', true],
    [' a = b ', true],
    ['a=c', false],
    ['a!=b', false],
    ['a!=c', true],
    ['no!=c', true],
    ['no=', false],
    ['empty=', true],
    ['empty!=', false],
    ['x.io/y', true],
    ['a in (b)', true],
    ['a in(c,b)', true],
    ['a in ( c , b )', true],
    ['a in (c)', false],
    ['no in (c)', false],
    ['empty in ()', true],
    ['empty in (,)', true],
    ['a in (c,)', false],
    ['a notin (b)', false],
    ['a notin (c,d)', true],
    ['no notin (c)', true],
    ['in=z', true],
    ['in in (z)', true],
    ['n>9', true],
    ['n > 10', false],
    ['n<11', true],
    ['n<10', false],
    ['a>1', false],
    ['no<1', false],
    ['a=b,tier in (front,back),!no,n>1', true],
    ['a=b,tier in (back),!no', false],
    ['constructor', false],
    ['!constructor', true],
    ['toString!=x', true],
  ])('%s is %s', (text, wanted) => {
    expect(parseSelector(text)(labels)).toBe(wanted)
  })

  it.each([
    '=',
    ',',
    'a,',
    ',a',
    'a b',
    'a=b c',
    'a in',
    'a in b',
    'a in (b',
    'a in (b c)',
    'a=(b)',
    '!',
    '!a=b',
  ])('refuses %s', (text) => {
    expect(() => parseSelector(text)).toThrow(expect.objectContaining({ reason: 'BadRequest' }))
  })

  it.each([
    'a>x',
    'a<',
    'a>-1',
    '-a',
    'a-',
    'é=1',
    'a=é',
    '/a',
    'a/b/c',
    `${'x'.repeat(400)}`,
    'a=b=c',
    'a!b',
    '"a"',
  ])('refuses the words of %s', (text) => {
    expect(() => parseSelector(text)).toThrow(expect.objectContaining({ reason: 'BadRequest' }))
  })

  it('reads whatever comes, or refuses it, in a time that grows no faster than its length', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('a', ' ', ',', '(', ')', '=', '!', '<', 'in', 'notin', 'b')),
        (parts) => {
          try {
            parseSelector(parts.join(''))(labels)
          } catch (error) {
            expect(error).toMatchObject({ reason: 'BadRequest' })
          }
        },
      ),
      { numRuns: 2_000 },
    )
    for (const piece of ['(', ',', 'a in (', 'a,', '!', ' ', 'a=b,'])
      try {
        parseSelector(piece.repeat(16_384 / piece.length))
      } catch (error) {
        expect(error).toMatchObject({ reason: 'BadRequest' })
      }
  })
})

import { isIP } from 'node:net'
import { CelScalar, celEnv, celFunc, celMethod, isCelError, parse as parseCel, plan } from '@bufbuild/cel'
import { strings } from '@bufbuild/cel/ext'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { objectSchema } from '../../src/resources/crd.ts'
import { apiVersionOf, group } from '../../src/resources/define.ts'
import { kinds } from '../../src/resources/kinds.ts'
import { parse } from '../../src/resources/parse.ts'
import { isRecord } from '../../src/resources/prune.ts'
import { parseQuantity } from '../../src/resources/quantity.ts'
import type { StructuralSchema } from '../../src/resources/schema.ts'

const { STRING, INT, BOOL } = CelScalar
/** What Kubernetes adds to CEL, as far as rules use it. A quantity is a number here: it is only compared. */
const kubernetes = [
  celFunc('quantity', [STRING], INT, (text) => parseQuantity(text) ?? -1n),
  celMethod('compareTo', INT, [INT], INT, function (other) {
    return BigInt(Number(this > other) - Number(this < other))
  }),
  celFunc('isIP', [STRING], BOOL, (text) => isIP(text) !== 0),
]
const env = celEnv({ funcs: [...strings, ...kubernetes] })
const plans = new Map<string, ReturnType<typeof plan>>()

/** Numbers of JSON are integers to a schema that says so, and all of ours do. */
function celValue(value: unknown): unknown {
  if (typeof value === 'number') return BigInt(value)
  if (Array.isArray(value)) return value.map(celValue)
  if (!isRecord(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, celValue(one)]))
}

function holds(rule: string, self: unknown): boolean {
  const planned = plans.get(rule) ?? plan(env, parseCel(rule))
  plans.set(rule, planned)
  const result = planned({ self: celValue(self) } as never)
  if (isCelError(result)) throw new Error(`${rule}: ${result.message}`, { cause: result })
  return result === true
}

/** The values at a rule's place. */
function placesOf(root: unknown, at: string): unknown[] {
  const steps = at === '' ? [] : at.split('.')
  return steps.reduce<unknown[]>(
    (values, step) => {
      const name = step.replace('[]', '')
      const next = values
        .map((value) => (value as Record<string, unknown>)[name])
        .filter((one) => one !== undefined)
      return step === name ? next : next.flat()
    },
    [root],
  )
}

/** Every rule that a value breaks, as an API server finds it: all over the schema, defaults applied before. */
function broken(schema: StructuralSchema, value: unknown): string[] {
  if (value === undefined) return []
  const own = (schema['x-kubernetes-validations'] ?? [])
    .filter(({ rule }) => !holds(rule, value))
    .map(({ message }) => message)
  if (Array.isArray(value) && schema.items) {
    const { items } = schema
    return [...own, ...value.flatMap((item) => broken(items, item))]
  }
  if (!isRecord(value)) return own
  const members = Object.entries(schema.properties ?? {})
  return [...own, ...members.flatMap(([name, member]) => broken(member, value[name]))]
}

const words = [
  '/p',
  'a',
  'b',
  'nas',
  '1.2.3.4',
  '1.2.3',
  'a..b',
  'fe80::1',
  '0x7f',
  'https://a/b',
  'file',
  '52:54:00:12:34:56',
  '00:00:00:00:00:00',
  'b'.repeat(64),
]

/** Values that fit a schema but for what its rules say. */
function fitting(schema: StructuralSchema): fc.Arbitrary<unknown> {
  if (schema.enum) return fc.constantFrom(...schema.enum)
  if (schema['x-kubernetes-int-or-string'])
    return fc.oneof(fc.constantFrom('1Gi', '1.5Gi', '0', '1Ki', '1048575', '1048576', '7Ei'), fc.nat(2 << 20))
  if (schema.type === 'array') {
    const list = fc.array(fitting(schema.items ?? {}), { maxLength: 3 })
    // Some with one thing twice.
    return fc.tuple(list, fc.boolean()).map(([all, twice]) => (twice ? [...all, ...all.slice(0, 1)] : all))
  }
  if (schema.type === 'boolean') return fc.boolean()
  const { minimum: min = 0, maximum = 9 } = schema
  if (schema.type === 'integer') return fc.integer({ min, max: Math.min(maximum, min + 2) })
  if (schema.additionalProperties)
    return fc.dictionary(fc.constantFrom('a', 'b'), fitting(schema.additionalProperties), {
      minKeys: 1,
      maxKeys: 2,
    })
  if (schema.type !== 'object') {
    const fit = words.filter(
      (word) => schema.pattern === undefined || new RegExp(schema.pattern, 'u').test(word),
    )
    return fc.constantFrom(...fit)
  }
  const { properties = {}, required = [] } = schema
  const optional = Object.keys(properties).filter((name) => !required.includes(name))
  const given = fc.subarray(optional).map((names) => [...required, ...names])
  return given.chain((names) =>
    fc.record(Object.fromEntries(names.map((name) => [name, fitting(properties[name] ?? {})]))),
  )
}

const ours = kinds.filter((kind) => kind.group === group).map((kind) => [kind.kind, kind] as const)

describe('rules', () => {
  it.each(ours.filter(([, { rules }]) => rules.some(({ cel }) => cel !== '')))(
    'of %s mean the same in CEL',
    (_, kind) => {
      const schema = objectSchema(kind)
      const { spec = {} } = schema.properties ?? {}
      const head = { apiVersion: apiVersionOf(kind), kind: kind.kind, metadata: { name: 'a' } }
      const rules = kind.rules.filter(({ cel }) => cel !== '')
      const seen = new Set<string>()
      fc.assert(
        fc.property(fitting(spec), (body) => {
          const shown = parse({ ...kind, rules: [] }, { ...head, spec: body })
          // What the schema alone refuses is not asked of rules.
          fc.pre(shown.ok)
          for (const { at, cel, message, holds: ours } of rules) {
            for (const value of placesOf(shown.ok ? shown.object : {}, at)) {
              const verdict = holds(cel, value)
              seen.add(`${message}: ${verdict}`)
              expect(verdict, `${message}: ${JSON.stringify(value)}`).toBe(ours(value as never) === true)
            }
          }
        }),
        { numRuns: 1_000 },
      )
      // None that is never broken, or never kept, and so never compared.
      expect([...seen].sort()).toEqual(
        rules.flatMap(({ message }) => [`${message}: false`, `${message}: true`]).sort(),
      )
    },
  )

  it.each(ours)(
    'of %s hold for defaults as they are written: an API server looks at these alone',
    (_, kind) => {
      const schema = objectSchema(kind)
      const wrong: string[] = []
      const look = (one: StructuralSchema, at: string) => {
        if (one.default !== undefined)
          wrong.push(...broken(one, one.default).map((message) => `${at}: ${message}`))
        if (one.items) look(one.items, `${at}[]`)
        for (const [name, member] of Object.entries(one.properties ?? {})) look(member, `${at}.${name}`)
      }
      look(schema, '')
      expect(wrong).toEqual([])
    },
  )
})

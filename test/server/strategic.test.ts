import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { strategicPatch } from '../../src/server/strategic.ts'
import { ApiError } from '../../src/store/errors.ts'

const run = promisify(execFile)
const program = process.env['KUBECTL'] ?? 'kubectl'
const dir = mkdtempSync(join(tmpdir(), 'pvs-'))
const file = join(dir, 'object.json')
afterAll(() => rmSync(dir, { recursive: true }))

const owner = (uid: string, name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', name, uid })
const object = {
  ...{ apiVersion: 'v1', kind: 'ConfigMap' },
  metadata: {
    ...{ name: 'a', labels: { a: '1', b: '2' }, finalizers: ['x/a', 'x/s', 'x/b'] },
    ownerReferences: [owner('1', 'one'), owner('2', 'two'), owner('3', 'three')],
  },
  data: { k: 'v', l: 'w' },
}
writeFileSync(file, JSON.stringify(object))

/** Where a null is left in a list's element, whoever reads the object takes it for nothing. */
const noNull = (_: string, value: unknown) => (value === null ? undefined : value)

/** What Kubernetes' own code in kubectl makes of a patch, without any server; undefined where it refuses it. */
async function theirs(patch: object): Promise<unknown> {
  const args = ['--kubeconfig', '/dev/null', 'patch', '--local', '--type=strategic', '-f', file, '-o', 'json']
  const done = await run(program, [...args, '-p', JSON.stringify(patch)], { timeout: 60_000 }).catch(() => {})
  return done && JSON.parse(done.stdout, noNull)
}

function ours(patch: object): unknown {
  try {
    return JSON.parse(JSON.stringify(strategicPatch(object, patch)), noNull)
  } catch {
    return undefined
  }
}

/** Without what a patch both puts in and takes out: what becomes of that changes from one call of kubectl to the next. */
function agreed<T extends { finalizers?: string[] }>(metadata: T): T {
  const { finalizers, '$deleteFromPrimitiveList/finalizers': gone } = metadata as Record<string, string[]>
  if (!finalizers || !gone) return metadata
  return { ...metadata, finalizers: finalizers.filter((one) => !gone.includes(one)) }
}

/** Deletions move elements in Kubernetes' own memory, and with them the order that it goes by. */
const inAnyOrder = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value ?? null), (_, one) =>
    Array.isArray(one) ? one.map((x) => JSON.stringify(x, keysOf(x))).sort() : one,
  )
const keysOf = (value: object) => (typeof value === 'object' ? Object.keys(value).sort() : [])

const ref = (uid: string, change: object = {}) => ({ uid, ...change })

describe('a strategic merge patch does what Kubernetes does', () => {
  it.each([
    [{ data: { k: 'z', n: 'new', l: null } }],
    [{ metadata: { labels: null, annotations: { a: 'b', c: null } } }],
    [{ data: { $patch: 'replace', q: 'r' } }],
    [{ data: { $patch: 'delete' } }],
    [{ data: { $patch: 'merge', q: 'r' } }],
    [{ data: { $patch: 'frob' } }],
    [{ data: { $retainKeys: ['l', 'n'], n: '1' } }],
    [{ data: { $retainKeys: ['l'], n: '1' } }],
    [{ metadata: { finalizers: ['x/c', 'x/a'] } }],
    [{ metadata: { finalizers: [] } }],
    [{ metadata: { finalizers: null } }],
    [{ metadata: { finalizers: [{ a: 1 }] } }],
    [{ metadata: { '$setElementOrder/finalizers': ['x/b', 'x/n', 'x/a'], finalizers: ['x/n'] } }],
    [{ metadata: { '$setElementOrder/finalizers': ['x/b', 'x/a'] } }],
    [{ metadata: { '$setElementOrder/finalizers': ['x/b'], finalizers: ['x/n'] } }],
    [
      {
        metadata: { '$deleteFromPrimitiveList/finalizers': ['x/a'], '$setElementOrder/finalizers': ['x/b'] },
      },
    ],
    [{ metadata: { '$deleteFromPrimitiveList/finalizers': ['x/a', 'x/q'], finalizers: ['x/z'] } }],
    [{ metadata: { ownerReferences: [ref('2', { name: 'q' }), ref('4', { name: 'new', kind: null })] } }],
    [{ metadata: { ownerReferences: [ref('2', { $patch: 'delete' }), ref('4')] } }],
    [{ metadata: { ownerReferences: [{ $patch: 'replace' }, ref('4')] } }],
    [{ metadata: { ownerReferences: [{ name: 'n' }] } }],
    [{ metadata: { ownerReferences: ['n'] } }],
    [
      {
        metadata: {
          '$setElementOrder/ownerReferences': [ref('3'), ref('1')],
          ownerReferences: [ref('1', { name: 'q' })],
        },
      },
    ],
  ])('%j', async (patch) => {
    expect(ours(patch)).toEqual(await theirs(patch))
  })

  it('whatever is in it', { timeout: 240_000 }, async () => {
    const some = <T>(...all: readonly T[]) =>
      fc.subarray([...all]).chain((part) => fc.shuffledSubarray(part, { minLength: part.length }))
    const texts = some('x/a', 'x/b', 'x/s', 'x/n', 'x/m')
    const refs = some('1', '2', '3', '4', '5').chain((ids) =>
      fc.tuple(
        ...ids.map((uid) =>
          fc.constantFrom<object>(
            ref(uid),
            ref(uid, { name: 'n' }),
            ref(uid, { $patch: 'delete' }),
            ref(uid, { kind: null }),
          ),
        ),
      ),
    )
    const metadata = fc.record(
      {
        ...{ finalizers: texts, '$deleteFromPrimitiveList/finalizers': some('x/a', 'x/s', 'x/n') },
        '$setElementOrder/finalizers': fc.shuffledSubarray(['x/a', 'x/b', 'x/s', 'x/n', 'x/m'], {
          minLength: 3,
        }),
        ownerReferences: refs,
        '$setElementOrder/ownerReferences': fc
          .shuffledSubarray(['1', '2', '3', '4', '5'], { minLength: 3 })
          .map((ids) => ids.map((uid) => ref(uid))),
      },
      { requiredKeys: [] },
    )
    await fc.assert(
      fc.asyncProperty(metadata.map(agreed), async (one) => {
        const both = [ours({ metadata: one }), await theirs({ metadata: one })]
        const [own, other] = JSON.stringify(one).includes('elete') ? both.map(inAnyOrder) : both
        expect(own).toEqual(other)
      }),
      { numRuns: 40 },
    )
  })
})

it('is refused or taken, whatever it is, and soon', { timeout: 60_000 }, () => {
  const names = fc.constantFrom(
    ...[
      'metadata',
      'finalizers',
      'ownerReferences',
      'data',
      'status',
      'conditions',
      'uid',
      'type',
      'k',
      '$patch',
    ],
    ...[
      '$retainKeys',
      '$setElementOrder/finalizers',
      '$deleteFromPrimitiveList/finalizers',
      '$setElementOrder/',
      '__proto__',
    ],
  )
  const { any } = fc.letrec((tie) => ({
    any: fc.oneof(
      fc.constantFrom(null, 1, '', 'x/a', 'replace', 'delete', true),
      fc.array(tie('any'), { maxLength: 3 }),
      tie('map'),
    ),
    map: fc.array(fc.tuple(names, tie('any')), { maxLength: 4 }).map((pairs) => Object.fromEntries(pairs)),
  }))
  const tried = (target: unknown, patch: unknown) => {
    try {
      strategicPatch(target, patch)
      return undefined
    } catch (error) {
      return error
    }
  }
  fc.assert(
    fc.property(fc.oneof(any, fc.constant(object)), any, (target, patch) => {
      const error = tried(target, patch)
      return error === undefined || (error instanceof ApiError && error.reason === 'BadRequest')
    }),
    { numRuns: 5_000 },
  )
  const many = Array.from({ length: 100_000 }, (_, i) => `x/${i}`)
  const patch = {
    metadata: {
      finalizers: many,
      '$setElementOrder/finalizers': many,
      '$deleteFromPrimitiveList/finalizers': many,
    },
  }
  const before = performance.now()
  strategicPatch({ metadata: { finalizers: many.toReversed() } }, patch)
  expect(performance.now() - before).toBeLessThan(5_000)
})

it('can’t change a prototype, and changes neither object nor patch', () => {
  const patch = JSON.parse('{"__proto__":{"x":1},"data":{"__proto__":"y","constructor":"z"}}')
  const text = JSON.stringify([object, patch])
  strategicPatch(object, patch)
  expect(({} as { x?: unknown }).x).toBeUndefined()
  expect(JSON.stringify([object, patch])).toBe(text)
})

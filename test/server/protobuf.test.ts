import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseBody } from '../../src/server/body.ts'
import { ApiError } from '../../src/store/errors.ts'

const type = 'application/vnd.kubernetes.protobuf'
type Value = string | number | Buffer

/** A field as it goes over the wire: a number as a varint, anything else with its length. */
function field(number: number, value: Value): Buffer {
  if (typeof value === 'number') return Buffer.concat([varint(number << 3), varint(value)])
  const bytes = Buffer.from(value as string)
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let left = value; ; left = Math.floor(left / 128)) {
    bytes.push(left > 127 ? (left % 128) | 128 : left)
    if (left < 128) return Buffer.from(bytes)
  }
}

const message = (...fields: (readonly [number, Value])[]) =>
  Buffer.concat(fields.map(([n, v]) => field(n, v)))

function wrapped(apiVersion: string, kind: string, body: Buffer): Buffer {
  const meta = message([1, apiVersion], [2, kind])
  return Buffer.concat([Buffer.from('k8s\0'), message([1, meta], [2, body], [3, ''], [4, ''])])
}

const rbac = 'rbac.authorization.k8s.io/v1'
const role = wrapped(
  rbac,
  'Role',
  message(
    // Go writes what is empty, too; JSON leaves it out.
    [
      1,
      message(
        [1, 'a'],
        [2, ''],
        [7, 0],
        [8, Buffer.alloc(0)],
        [11, message([1, 'k'], [2, 'v'])],
        [11, message([1, 'l'])],
      ),
    ],
    [2, message([1, 'get'], [1, 'list'], [2, ''], [3, 'events'], [99, 'new in another version'])],
    [2, message([1, 'create'], [2, 'g'], [3, 'r'])],
  ),
)

describe("Kubernetes' protobuf", () => {
  it('is the JSON that it stands for', () => {
    expect(parseBody(role, type)).toEqual({
      ...{ apiVersion: rbac, kind: 'Role', metadata: { name: 'a', labels: { k: 'v', l: '' } } },
      rules: [
        { verbs: ['get', 'list'], apiGroups: [''], resources: ['events'] },
        { verbs: ['create'], apiGroups: ['g'], resources: ['r'] },
      ],
    })
    const options = message([1, 30], [2, message([1, 'uid'])], [3, 0], [4, 'Background'], [5, 'All'])
    expect(parseBody(wrapped('plasmavmc.io/v1alpha1', 'DeleteOptions', options), type)).toMatchObject({
      ...{
        gracePeriodSeconds: 30,
        preconditions: { uid: 'uid' },
        propagationPolicy: 'Background',
        dryRun: ['All'],
      },
    })
    const time = message([1, message([8, message([1, 1_767_323_045], [2, 5])])])
    const dated = parseBody(wrapped('v1', 'Namespace', time), type)
    expect(dated).toMatchObject({ metadata: { creationTimestamp: '2026-01-02T03:04:05Z' } })
  })

  it('has bytes, which JSON has in base64', () => {
    const bytes = Buffer.from([0, 255, 10])
    const config = message(
      ...([
        [1, message([1, 'a'])],
        [2, message([1, 'k'], [2, 'v'])],
        [3, message([1, 'b'], [2, bytes])],
      ] as const),
      ...([
        [3, message([1, 'none'])],
        [4, 1],
      ] as const),
    )
    expect(parseBody(wrapped('v1', 'ConfigMap', config), type)).toEqual({
      ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, immutable: true },
      ...{ data: { k: 'v' }, binaryData: { b: 'AP8K', none: '' } },
    })
    const secret = message(
      [2, message([1, 'p'], [2, bytes])],
      [3, 'Opaque'],
      [4, message([1, 'q'], [2, 'r'])],
    )
    expect(parseBody(wrapped('v1', 'Secret', secret), type)).toEqual({
      ...{ apiVersion: 'v1', kind: 'Secret', type: 'Opaque' },
      ...{ data: { p: 'AP8K' }, stringData: { q: 'r' } },
    })
    const wrong = wrapped('v1', 'Secret', message([2, message([1, 'p'], [2, 7])]))
    expect(() => parseBody(wrong, type)).toThrow(/a number stands where a message belongs/)
  })

  it('may not touch what an object is made of', () => {
    const label = message([1, message([11, message([1, '__proto__'], [2, 'x'])])])
    const { metadata } = parseBody(wrapped('v1', 'Namespace', label), type) as {
      metadata: { labels: object }
    }
    expect(Object.getPrototypeOf(metadata.labels)).toBe(Object.prototype)
    expect(({} as { x?: unknown }).x).toBeUndefined()
  })

  it('is refused of kinds whose fields are not known here', () => {
    const body = wrapped('v1', 'Pod', message([1, message([1, 'a'])]))
    expect(() => parseBody(body, type)).toThrow(
      /protobuf of Pod of v1 is not understood here; use application\/json/,
    )
  })

  it('is refused wherever it is cut off, or of other bytes', () => {
    const refusal = (bytes: Buffer) => {
      try {
        parseBody(bytes, type)
        return undefined
      } catch (error) {
        return error instanceof ApiError && error.status < 500 ? undefined : error
      }
    }
    for (let end = 1; end < role.length; end += 1) expect(refusal(role.subarray(0, end))).toBeUndefined()
    const any = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes))
    fc.assert(fc.property(any, (bytes) => refusal(bytes) === undefined))
    for (const [version, kind] of [
      [rbac, 'ClusterRole'],
      ['v1', 'ConfigMap'],
    ] as const)
      fc.assert(fc.property(any, (bytes) => refusal(wrapped(version, kind, bytes)) === undefined))
    const at = fc.nat({ max: role.length - 1 })
    fc.assert(
      fc.property(at, fc.nat(255), (place, byte) => {
        const changed = Buffer.from(role)
        changed[place] = byte
        return refusal(changed) === undefined
      }),
    )
    expect(() => parseBody(role.subarray(4), type)).toThrow(/does not begin with k8s/)
    expect(() => parseBody(role.subarray(0, -6), type)).toThrow(/it ends within a field/)
  })
})

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { parseBody } from '../../src/server/body.ts'
import { protobufType } from '../../src/server/protobuf.ts'
import { message } from '../../src/server/protobuf-write.ts'
import { ApiError } from '../../src/store/errors.ts'
import { lab } from './fixture.ts'

const magic = Buffer.from('k8s\0')
const wrapped = (apiVersion: string, kind: string, content: Buffer) =>
  Buffer.concat([magic, message({ 1: message({ 1: apiVersion, 2: kind }), 2: content, 3: '', 4: '' })])

/** What kubectl 1.32 sends for `create namespace shop`, with labels, an annotation, an owner and a time besides. */
const meta = message({
  ...{ 1: 'shop', 2: '', 3: '', 5: '', 7: 0n, 8: message({}) },
  11: [message({ 1: 'a', 2: 'b' }), message({ 1: 'empty' })],
  12: [message({ 1: 'note', 2: 'é' })],
  13: [message({ 1: 'Host', 3: 'h1', 4: 'u', 5: 'plasmavmc.io/v1alpha1', 6: true, 7: false })],
  14: ['x.io/y'],
})
const namespace = wrapped(
  'v1',
  'Namespace',
  message({ 1: meta, 2: message({ 1: ['kubernetes'] }), 3: message({ 1: '' }) }),
)

it("reads Kubernetes' own objects", () => {
  expect(parseBody(namespace, protobufType)).toEqual({
    ...{ apiVersion: 'v1', kind: 'Namespace', spec: { finalizers: ['kubernetes'] }, status: {} },
    metadata: {
      name: 'shop',
      labels: { a: 'b', empty: '' },
      annotations: { note: 'é' },
      ownerReferences: [
        {
          kind: 'Host',
          name: 'h1',
          uid: 'u',
          apiVersion: 'plasmavmc.io/v1alpha1',
          controller: true,
          blockOwnerDeletion: false,
        },
      ],
      finalizers: ['x.io/y'],
    },
  })
  const asks = message({
    2: message({ 1: message({ 1: 'default', 2: 'get', 3: 'plasmavmc.io', 5: 'virtualmachines' }) }),
  })
  expect(
    parseBody(wrapped('authorization.k8s.io/v1', 'SelfSubjectAccessReview', asks), protobufType),
  ).toMatchObject({
    spec: {
      resourceAttributes: {
        namespace: 'default',
        verb: 'get',
        group: 'plasmavmc.io',
        resource: 'virtualmachines',
      },
    },
  })
  const dated = wrapped(
    'v1',
    'Namespace',
    message({ 1: message({ 1: 'x', 8: message({ 1: 1_767_225_600n }) }) }),
  )
  expect(parseBody(dated, protobufType)).toMatchObject({
    metadata: { creationTimestamp: '2026-01-01T00:00:00Z' },
  })
})

it('creates from it', async () => {
  const server = await lab()
  const headers = { authorization: 'Bearer admin', 'content-type': protobufType }
  const { statusCode } = await server.app.inject({
    method: 'POST',
    url: '/api/v1/namespaces',
    payload: namespace,
    headers,
  })
  expect(statusCode).toBe(201)
  expect((await server.call('GET', '/api/v1/namespaces/shop')).json.metadata.labels).toEqual({
    a: 'b',
    empty: '',
  })
})

it.each([
  ['no magic', Buffer.from('{}'), 'BadRequest', 'first bytes'],
  ['another kind', wrapped('v1', 'Secret', message({})), 'UnsupportedMediaType', '"v1 Secret"'],
  ['a name of Object', wrapped('', 'constructor', message({})), 'UnsupportedMediaType', 'constructor'],
  ['a cut field', namespace.subarray(0, namespace.length - 9), 'BadRequest', 'ends within'],
  [
    'a text that is none',
    wrapped('v1', 'Namespace', message({ 1: message({ 1: Buffer.from([0xff]) }) })),
    'BadRequest',
    'UTF-8',
  ],
  [
    'a number for a text',
    wrapped('v1', 'Namespace', message({ 1: message({ 1: 5n }) })),
    'BadRequest',
    'a text is a number',
  ],
])('refuses %s', (_, bytes, reason, why) => {
  try {
    parseBody(bytes, protobufType)
  } catch (error) {
    expect((error as ApiError).reason).toBe(reason)
    expect((error as ApiError).message).toContain(why)
    return
  }
  throw new Error('it was taken')
})

it('whatever comes is read or refused, and pollutes nothing', () => {
  const refused = (bytes: Buffer) => {
    try {
      parseBody(bytes, protobufType)
    } catch (error) {
      expect(error).toBeInstanceOf(ApiError)
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      refused(Buffer.concat([magic, bytes]))
      refused(wrapped('v1', 'Namespace', Buffer.from(bytes)))
    }),
    { numRuns: 2_000 },
  )
  fc.assert(
    fc.property(fc.nat(namespace.length - 1), fc.nat(255), (at, byte) => {
      const changed = Buffer.from(namespace)
      changed[at] = byte
      refused(changed)
    }),
    { numRuns: 2_000 },
  )
  const poison = message({ 11: [message({ 1: '__proto__', 2: 'x' })] })
  expect(
    Object.getPrototypeOf(parseBody(wrapped('v1', 'Namespace', message({ 1: poison })), protobufType)),
  ).toBe(Object.prototype)
})

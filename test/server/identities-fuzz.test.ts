import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ServerError } from '../../src/cli/failure.ts'
import { IdentitiesLab, keysPath, rbacPath } from './identities-lab.ts'

let lab: IdentitiesLab
beforeAll(async () => {
  lab = await IdentitiesLab.start()
})
afterAll(() => lab.close())

const names = fc.constantFrom(
  ...[
    'metadata',
    'spec',
    'status',
    'rules',
    'verbs',
    'apiGroups',
    'resources',
    'resourceNames',
    'nonResourceURLs',
  ],
  ...[
    'subjects',
    'roleRef',
    'kind',
    'name',
    'namespace',
    'user',
    'groups',
    'expiresAt',
    'disabled',
    'resourceVersion',
  ],
  ...[
    'resourceAttributes',
    'nonResourceAttributes',
    'path',
    'verb',
    'uid',
    'finalizers',
    '__proto__',
    'constructor',
  ],
)
const scalar = fc.oneof(
  fc.constantFrom(
    null,
    true,
    0,
    -1,
    1e308,
    '',
    '*',
    'a',
    'system:masters',
    'ClusterRole',
    'User',
    '/',
    '2027-01-01T00:00:00Z',
  ),
  fc.string({ unit: 'binary' }),
)
const { value } = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: 'small' }, scalar, tie('list'), tie('object')),
  list: fc.array(tie('value'), { maxLength: 3 }),
  object: fc.array(fc.tuple(names, tie('value')), { maxLength: 5 }).map((pairs) => Object.fromEntries(pairs)),
}))
const objects = fc.record(
  {
    metadata: fc.oneof(fc.constant({ name: 'a' }), fc.constant({ name: 'a', resourceVersion: 7 }), value),
    ...{
      spec: value,
      status: value,
      rules: fc.array(value, { maxLength: 3 }),
      subjects: fc.array(value, { maxLength: 3 }),
    },
    roleRef: fc.oneof(fc.constant({ kind: 'ClusterRole', name: 'view' }), value),
  },
  { requiredKeys: ['metadata'] },
)
const local = `${rbacPath}/namespaces/default`
const paths = fc.constantFrom(
  ...[
    keysPath,
    `${rbacPath}/clusterroles`,
    `${rbacPath}/clusterrolebindings`,
    `${local}/roles`,
    `${local}/rolebindings`,
  ],
  ...['subjectaccessreviews', 'selfsubjectaccessreviews', 'selfsubjectrulesreviews'].map(
    (one) => `/apis/authorization.k8s.io/v1/${one}`,
  ),
  '/apis/authentication.k8s.io/v1/selfsubjectreviews',
)
const methods = fc.constantFrom('POST', 'POST', 'PUT', 'PATCH', 'GET', 'DELETE')

it('answers whatever is asked of keys, roles and reviews without a failure of its own', {
  timeout: 120_000,
}, async () => {
  const client = lab.client()
  await fc.assert(
    fc.asyncProperty(
      methods,
      paths,
      fc.boolean(),
      fc.oneof(objects, value),
      async (method, path, one, body) => {
        const target = method !== 'POST' && one ? `${path}/a` : path
        const sends = method !== 'GET' && method !== 'DELETE'
        const contentType = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
        const options = { contentType, ...(sends && { body }) }
        const error: unknown = await client.text(method, target, options).then(
          () => undefined,
          (thrown: unknown) => thrown,
        )
        if (error === undefined) return
        expect(error).toBeInstanceOf(ServerError)
        expect((error as ServerError).status.code, (error as ServerError).message).toBeLessThan(500)
      },
    ),
    { numRuns: 600 },
  )
  // Nothing of it made anybody more than they were.
  expect((await lab.cli(await lab.key('after'), 'get', 'vms')).code).toBe(1)
})

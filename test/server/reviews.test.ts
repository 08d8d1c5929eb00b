import { beforeAll, expect, it } from 'vitest'
import { type Lab, lab } from './fixture.ts'

const path = '/apis/authorization.k8s.io/v1'
let server: Lab
beforeAll(async () => {
  server = await lab()
})

it.each([
  ['selfsubjectrulesreviews', { namespace: 'default' }, { nonResourceRules: null, resourceRules: null }],
  ['selfsubjectaccessreviews', { nonResourceAttributes: { verb: 'get', path: '/x' } }, { allowed: 'maybe' }],
  ['subjectaccessreviews', { user: 'a', nonResourceAttributes: { verb: 'get', path: '/x' } }, 7],
])('a status that comes with %s is no matter', async (plural, spec, status) => {
  const asked = await server.call('POST', `${path}/${plural}`, { spec })
  const { code, json } = await server.call('POST', `${path}/${plural}`, { spec, status })
  expect([code, json]).toEqual([201, asked.json])
  expect(json.status).not.toEqual(status)
})

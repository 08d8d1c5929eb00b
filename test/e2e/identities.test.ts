import { copyFileSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parseCredentials } from '../../src/auth/credentials.ts'
import type { Credentials } from '../../src/auth/sign.ts'
import { type Client, openClient } from '../../src/cli/client.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { Lab, program, type Ran } from './lab.ts'

let etcd: EtcdLab
let labs: readonly [Lab, Lab]

beforeAll(async () => {
  etcd = await EtcdLab.start()
  const flags = (host: string) => [
    ...['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(','), '--host-name', host],
    ...['--peer-listen', '127.0.0.1:0'],
  ]
  labs = [await Lab.start({ flags: flags('one') }), await Lab.start({ flags: flags('two') })]
})
afterAll(async () => {
  await Promise.all((labs ?? []).map((lab) => lab.close()))
  await etcd?.close()
})

/** A command line as somebody. */
function as(
  lab: Lab,
  { accessKeyId, secretAccessKey }: Credentials,
  ...args: readonly string[]
): Promise<Ran> {
  const env = [`PLASMAVMC_ACCESS_KEY_ID=${accessKeyId}`, `PLASMAVMC_SECRET_ACCESS_KEY=${secretAccessKey}`]
  return lab.run('env', [...env, program, ...args])
}

const own = '/apis/plasmavmc.io/v1alpha1'

/** A client that signs as somebody. */
function clientOf(lab: Lab, { accessKeyId, secretAccessKey }: Credentials): Client {
  const [host = '', port] = lab.address.split(':')
  const env = { PLASMAVMC_ACCESS_KEY_ID: accessKeyId, PLASMAVMC_SECRET_ACCESS_KEY: secretAccessKey }
  return openClient({ host, port: Number(port), dataDir: lab.dataDir, flags: '' }, systemClock, env)
}

async function newKey(lab: Lab, user: string): Promise<Credentials> {
  const { stdout, stderr } = await lab.cli('key', 'create', user)
  const made = parseCredentials(stdout).get(user)
  if (!made) throw new Error(stderr)
  return made
}

test('a key that is made on one server works on the other within a second, and is refused there once it is disabled', async () => {
  const [one, two] = labs
  const file = join(one.dataDir, 'secrets.key')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  // The second server has none of its own: secrets under it could be read nowhere else.
  expect(() => statSync(join(two.dataDir, 'secrets.key'))).toThrow(/ENOENT/)
  const early = await two.cli('key', 'create', 'early')
  expect(early.stderr).toMatch(/copy secrets.key/)
  copyFileSync(file, join(two.dataDir, 'secrets.key'))
  await two.until('the copy is taken', () =>
    readFileSync(join(two.dir, 'server.log'), 'utf8').includes('read anew'),
  )
  const key = { body: { metadata: {}, spec: { user: 'alice' } } }
  const { status: alice } = await one.client.json<{ status: Credentials }>('POST', `${own}/accesskeys`, key)
  const made = performance.now()
  const elsewhere = clientOf(two, alice)
  const whoami = () =>
    elsewhere.json('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', { body: {} })
  await two.until('it is let in', () => whoami().then(() => true), 1_000)
  expect(performance.now() - made).toBeLessThan(1_000)
  elsewhere.close()
  const client = () => as(two, alice, 'auth', 'whoami')
  expect((await client()).stdout).toMatch(/Username +alice/)
  expect((await one.cli('key', 'disable', alice.accessKeyId)).code).toBe(0)
  await two.until('it is refused', async () => (await client()).stderr.includes('InvalidClientTokenId'))
})

test('keys and roles outlive a kill of the server, and what they allow is what happens', async () => {
  const [one, two] = labs
  const bob = await newKey(two, 'bob')
  const refused = await as(one, bob, 'get', 'vms')
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/User "bob" cannot list/) })
  const rbac = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings'
  const roleRef = { kind: 'ClusterRole', name: 'view' }
  const subjects = [{ kind: 'User', name: 'bob' }]
  await one.client.json('POST', rbac, { body: { metadata: { name: 'bob' }, roleRef, subjects } })
  await two.until('bob may look', async () => (await as(two, bob, 'get', 'vms')).code === 0)
  await one.end()
  await one.serve({
    flags: [
      ...['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(','), '--host-name', 'one'],
      ...['--peer-listen', '127.0.0.1:0'],
    ],
  })
  expect(await as(one, bob, 'get', 'vms')).toMatchObject({ code: 0 })
  expect(await as(one, bob, 'delete', 'vm', 'x')).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/cannot/),
  })
  const audit = readFileSync(join(one.dataDir, 'audit.log'), 'utf8')
  expect(audit).toContain(bob.accessKeyId)
  expect(audit).not.toContain(bob.secretAccessKey)
  expect(readFileSync(join(one.dir, 'server.log'), 'utf8')).not.toContain(bob.secretAccessKey)
})

test('nobody grants or becomes what they are not', async () => {
  const [one] = labs
  const rbac = '/apis/rbac.authorization.k8s.io/v1'
  const eve = await newKey(one, 'eve')
  const rules = [
    { verbs: ['create'], apiGroups: ['rbac.authorization.k8s.io'], resources: ['clusterroles'] },
    { verbs: ['create'], apiGroups: ['plasmavmc.io'], resources: ['accesskeys'] },
  ]
  await one.client.json('POST', `${rbac}/clusterroles`, { body: { metadata: { name: 'eve' }, rules } })
  const roleRef = { kind: 'ClusterRole', name: 'eve' }
  const body = { metadata: { name: 'eve' }, roleRef, subjects: [{ kind: 'User', name: 'eve' }] }
  await one.client.json('POST', `${rbac}/clusterrolebindings`, { body })
  await one.until(
    'she may',
    async () => (await as(one, eve, 'auth', 'can-i', 'create', 'accesskeys')).code === 0,
  )
  const hers = clientOf(one, eve)
  const everything = [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }]
  const role = { body: { metadata: { name: 'more' }, rules: everything } }
  await expect(hers.json('POST', `${rbac}/clusterroles`, role)).rejects.toThrow(/not currently held/)
  const key = { body: { metadata: {}, spec: { user: 'admin', groups: ['system:masters'] } } }
  await expect(hers.json('POST', `${own}/accesskeys`, key)).rejects.toThrow(/cannot impersonate/)
  hers.close()
  const asAdmin = await as(one, eve, '--as', 'admin', '--as-group', 'system:masters', 'get', 'vms')
  expect(asAdmin).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/cannot impersonate resource "users"/),
  })
  expect((await one.cli('--as', 'eve', 'auth', 'whoami')).stdout).toMatch(/Username +eve/)
})

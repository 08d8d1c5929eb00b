import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseCredentials } from '../../src/auth/credentials.ts'
import type { Credentials } from '../../src/auth/sign.ts'
import { openClient } from '../../src/cli/client.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { IdentitiesLab, until } from '../server/identities-lab.ts'

let lab: IdentitiesLab

beforeAll(async () => {
  lab = await IdentitiesLab.start()
})
afterAll(() => lab.close())

const run = (...argv: readonly string[]) => lab.cli(lab.admin, ...argv)
const as = (who: Credentials, ...argv: readonly string[]) => lab.cli(who, ...argv)

/** Makes a key, which must work. */
async function create(user: string, ...flags: readonly string[]): Promise<Credentials> {
  const { out, err, code } = await run('key', 'create', user, ...flags)
  expect(code, err).toBe(0)
  expect(err).toMatch(/shown this once/)
  const made = parseCredentials(out).get(user)
  if (!made) throw new Error(out)
  return made
}

it('makes a key as a profile of a credentials file, with which its user is let in', async () => {
  const alice = await create('alice', '--group', 'ops', '--group', 'dev', '--expires', '30d')
  const { out, code } = await as(alice, 'auth', 'whoami')
  expect(code).toBe(0)
  expect(out).toMatch(/Username +alice\nGroups +\[ops dev system:authenticated\]/)
  expect(out).toContain(`KEY=${alice.accessKeyId}`)
  const { out: list } = await run('key', 'list')
  const row = list.split('\n').find((line) => line.startsWith(alice.accessKeyId))
  const day = new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 10)
  expect(row).toMatch(new RegExp(`alice +ops,dev +Active +${day}T`))
  expect(list).not.toContain(alice.secretAccessKey)
})

it('disables, enables and deletes by id', async () => {
  const bob = await create('bob')
  const id = bob.accessKeyId
  const refused = async () => (await as(bob, 'auth', 'whoami')).code === 1
  expect(await run('key', 'disable', id)).toMatchObject({ code: 0, out: `${id} disabled\n` })
  await until('it is refused', refused)
  expect((await run('key', 'list')).out).toMatch(new RegExp(`${id} +bob +<none> +Disabled`))
  expect(await run('key', 'enable', id)).toMatchObject({ code: 0, out: `${id} enabled\n` })
  await until('it is let in', async () => !(await refused()))
  expect(await run('key', 'delete', id)).toMatchObject({ code: 0, out: `${id} deleted\n` })
  await until('it is refused', refused)
  expect(await run('key', 'delete', id)).toMatchObject({ code: 1, err: expect.stringContaining('not found') })
})

it('rotates: both are good, the old one for as long as is said, and never longer than it was', async () => {
  const carol = await create('carol', '--group', 'ops')
  const { out, err } = await run('key', 'rotate', carol.accessKeyId, '--keep', '2h')
  const next = parseCredentials(out).get('carol')
  if (!next) throw new Error(out)
  expect(next.accessKeyId).not.toBe(carol.accessKeyId)
  expect(err).toMatch(new RegExp(`${carol.accessKeyId} is good until \\d{4}-`))
  for (const one of [carol, next]) {
    const { out: who } = await as(one, 'auth', 'whoami')
    expect(who).toMatch(/Username +carol\nGroups +\[ops system/)
  }
  const path = `/apis/plasmavmc.io/v1alpha1/accesskeys/${carol.accessKeyId.toLowerCase()}`
  const expiry = async () =>
    (await lab.client().json<{ spec: { expiresAt: string } }>('GET', path)).spec.expiresAt
  const first = await expiry()
  expect(Math.abs(Date.parse(first) - Date.now() - 7_200_000)).toBeLessThan(60_000)
  await run('key', 'rotate', carol.accessKeyId, '--keep', '5h')
  expect(await expiry()).toBe(first)
})

it('a rotated key ends when the old one was to, unless told, and one that has ended is not rotated so', async () => {
  const erin = await create('erin', '--expires', '30d')
  const key = (id: string) =>
    lab
      .client()
      .json<{ spec: { expiresAt?: string } }>(
        'GET',
        `/apis/plasmavmc.io/v1alpha1/accesskeys/${id.toLowerCase()}`,
      )
  const rotated = async (...more: string[]) => {
    const { out } = await run('key', 'rotate', erin.accessKeyId, ...more)
    return key(parseCredentials(out).get('erin')?.accessKeyId ?? '')
  }
  const { expiresAt } = (await key(erin.accessKeyId)).spec
  expect(expiresAt).toMatch(/^\d{4}-/)
  expect((await rotated('--keep', '60d')).spec.expiresAt).toBe(expiresAt)
  const other = (await rotated('--expires', '2d', '--keep', '1s')).spec.expiresAt ?? ''
  expect(Math.abs(Date.parse(other) - Date.now() - 2 * 86_400_000)).toBeLessThan(60_000)
  await expect
    .poll(async () => (await run('key', 'rotate', erin.accessKeyId)).err, { timeout: 20_000 })
    .toMatch(/ended at .*give --expires/s)
  expect((await rotated('--expires', '2d')).spec.expiresAt).toMatch(/^\d{4}-/)
})

it('answers can-i by its exit code, and lists', async () => {
  const dave = await create('dave')
  expect(await run('auth', 'can-i', 'delete', 'vm/web')).toMatchObject({ code: 0, out: 'yes\n' })
  expect(await as(dave, 'auth', 'can-i', 'get', 'vm/web', '--subresource', 'console')).toMatchObject({
    code: 1,
    out: 'no\n',
  })
  expect(await as(dave, 'auth', 'can-i', 'get', '/apis')).toMatchObject({ code: 0, out: 'yes\n' })
  expect(await as(dave, 'auth', 'can-i', 'get', '/metrics', '-q')).toMatchObject({ code: 1, out: '' })
  const { out } = await as(dave, 'auth', 'can-i', '--list')
  expect(out).toMatch(/selfsubjectreviews.authentication.k8s.io +\[\] +\[\] +\[create\]/)
  expect(out).toMatch(/\[\/api \/api\/\* \/apis \/apis\/\* \/openapi \/openapi\/\*\] +\[\] +\[get\]/)
  expect(JSON.parse((await run('auth', 'whoami', '-o', 'json')).out).status.userInfo.username).toBe('admin')
})

it.each([
  [['key'], /missing required argument/],
  [['key', 'creat'], /key creat: no such action.*did you mean create/s],
  [['key', 'create'], /name one user/],
  [['key', 'create', 'x', '--expires', 'soon'], /--expires: "soon" is no duration and no time\nsuch as 30d/],
  [['key', 'create', 'x', '--expires', '-3h'], /no time to come|no duration/],
  [['key', 'delete'], /no key named/],
  [['auth', 'can'], /auth can: no such action.*can-i/s],
  [['auth', 'can-i', 'get'], /needs a verb and what/],
  [['auth', 'can-i', 'get', 'pods'], /doesn't have a resource type "pods"/],
  [['--as', 'x', 'token'], /a token is that of its key/],
  [['--as-group', 'x', 'get', 'vms'], /--as-group needs --as/],
])('refuses %j as usage', async (argv, message) => {
  const { code, err } = await run(...argv)
  expect(err).toMatch(message)
  expect(code).toBe(2)
})

it('signs a WebSocket as somebody, too, and puts it into a kubeconfig', async () => {
  const connection = { host: '127.0.0.1', port: 1, dataDir: lab.dataDir, flags: '' }
  const client = openClient({ ...connection, as: { user: 'bob', groups: ['a', 'b'] } }, systemClock)
  const { headers } = await client.signedSocket('/x')
  expect(headers).toMatchObject({ 'impersonate-user': 'bob', 'impersonate-group': ['a', 'b'] })
  expect(headers['authorization']).toMatch(/SignedHeaders=host;impersonate-group;impersonate-user;/)
  const { out } = await run('--as', 'bob', '--as-group', 'a', 'kubeconfig', '-o', 'json')
  expect(JSON.parse(out).users[0].user).toMatchObject({ as: 'bob', 'as-groups': ['a'] })
})

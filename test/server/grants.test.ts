import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Credentials } from '../../src/auth/sign.ts'
import { machines } from './fixture.ts'
import { forbidden, IdentitiesLab, keysPath, merge, pathOf, rbacPath, until } from './identities-lab.ts'

let lab: IdentitiesLab

beforeAll(async () => {
  lab = await IdentitiesLab.start()
})
afterAll(() => lab.close())

/** Gives somebody rules, in the namespace `default` where told, and waits until they have them. */
async function grant(user: string, rules: readonly object[], namespaced = false): Promise<void> {
  const admin = lab.client()
  const name = `${user}-${Math.random().toString(36).slice(2)}`
  const [role, binding] = namespaced ? ['Role', 'RoleBinding'] : ['ClusterRole', 'ClusterRoleBinding']
  const path = (kind: string) =>
    `${rbacPath}${namespaced ? '/namespaces/default' : ''}/${kind.toLowerCase()}s`
  await admin.json('POST', path(role), { body: { metadata: { name }, rules } })
  const subjects = [{ kind: 'User', name: user, apiGroup: 'rbac.authorization.k8s.io' }]
  await admin.json('POST', path(binding), {
    body: { metadata: { name }, subjects, roleRef: { kind: role, name } },
  })
  const list = { spec: { namespace: 'default' } }
  const asked = '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews'
  const key = await lab.key(user)
  await until('the rules are there', async () =>
    JSON.stringify(await lab.client(key).json('POST', asked, { body: list })).includes(
      JSON.stringify((rules as { verbs: string[] }[])[0]?.verbs),
    ),
  )
}

describe('nobody grants what they do not have', () => {
  const rbac = 'rbac.authorization.k8s.io'
  const viewer = [{ verbs: ['get'], apiGroups: ['plasmavmc.io'], resources: ['virtualmachines'] }]
  const everything = [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }]
  let mallory: Credentials

  beforeAll(async () => {
    mallory = await lab.key('mallory')
    const names = ['roles', 'clusterroles', 'rolebindings', 'clusterrolebindings']
    const all = ['create', 'get', 'list', 'patch', 'update', 'delete']
    await grant('mallory', [
      { verbs: all, apiGroups: [rbac], resources: names },
      { verbs: all, apiGroups: ['plasmavmc.io'], resources: ['accesskeys'] },
      ...viewer,
    ])
  })

  it('in a role, however it is written', async () => {
    const client = lab.client(mallory)
    const role = (rules: readonly object[]) => ({ metadata: { name: 'mine' }, rules })
    const refused = forbidden(
      /user "mallory".*attempting to grant RBAC permissions not currently held:\n\{APIGroups:/s,
    )
    for (const path of [`${rbacPath}/clusterroles`, `${rbacPath}/namespaces/default/roles`]) {
      await expect(client.json('POST', path, { body: role(everything) })).rejects.toMatchObject(refused)
      await client.json('POST', path, { body: role(viewer) })
      const one = `${path}/mine`
      await expect(client.json('PUT', one, { body: role(everything) })).rejects.toMatchObject(refused)
      await expect(
        client.json('PATCH', one, { ...merge, body: { rules: everything } }),
      ).rejects.toMatchObject(refused)
      const json = { contentType: 'application/json-patch+json' }
      const body = [{ op: 'replace', path: '/rules/0/verbs', value: ['*'] }]
      await expect(client.json('PATCH', one, { ...json, body })).rejects.toMatchObject(refused)
      await client.json('PATCH', one, { ...merge, body: { metadata: { labels: { a: 'b' } } } })
    }
  })

  it('in a role that is applied by the server, which must be let create what is not there', async () => {
    const client = lab.client(mallory)
    const one = `${rbacPath}/clusterroles/applied`
    const apply = (by: typeof client, rules: readonly object[]) =>
      by.json('PATCH', one, {
        contentType: 'application/apply-patch+yaml',
        query: { fieldManager: 'test', force: 'true' },
        body: { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: 'applied' }, rules },
      })
    const refused = forbidden(/not currently held/)
    await expect(apply(client, everything)).rejects.toMatchObject(refused)
    await grant('patcher', [{ verbs: ['patch', 'escalate'], apiGroups: [rbac], resources: ['clusterroles'] }])
    const patcher = lab.client(await lab.key('patcher'))
    await expect(apply(patcher, viewer)).rejects.toMatchObject(forbidden(/User "patcher" cannot create/))
    await apply(client, viewer)
    await expect(apply(client, everything)).rejects.toMatchObject(refused)
    await apply(patcher, everything)
  })

  it('a role that has more than they have may be labelled, as that grants nothing', async () => {
    const path = `${rbacPath}/clusterroles/cluster-admin`
    await lab.client(mallory).json('PATCH', path, { ...merge, body: { metadata: { labels: { a: 'b' } } } })
  })

  it('by a binding, nor is one turned to another role', async () => {
    const client = lab.client(mallory)
    const subjects = [{ kind: 'User', name: 'mallory' }]
    const bind = (name: string, role: string) => ({
      metadata: { name },
      subjects,
      roleRef: { kind: 'ClusterRole', name: role },
    })
    const [cluster, local] = [
      `${rbacPath}/clusterrolebindings`,
      `${rbacPath}/namespaces/default/rolebindings`,
    ]
    await lab
      .client()
      .json('POST', `${rbacPath}/clusterroles`, { body: { metadata: { name: 'looks' }, rules: viewer } })
    for (const path of [cluster, local]) {
      await expect(client.json('POST', path, { body: bind('a', 'cluster-admin') })).rejects.toMatchObject(
        forbidden(/not currently held/),
      )
      await expect(client.json('POST', path, { body: bind('a', 'nothere') })).rejects.toMatchObject(
        forbidden(/"nothere" not found/),
      )
      await client.json('POST', path, { body: bind('a', 'looks') })
      const body = { roleRef: { kind: 'ClusterRole', name: 'cluster-admin' } }
      await expect(client.json('PATCH', `${path}/a`, { ...merge, body })).rejects.toThrow(
        /roleRef.*cannot change roleRef/,
      )
    }
    const groups = { subjects: [{ kind: 'Group', name: 'system:authenticated' }] }
    await expect(
      client.json('PATCH', `${cluster}/cluster-admin`, { ...merge, body: groups }),
    ).rejects.toMatchObject(forbidden(/not currently held/))
  })

  it('by a key for somebody else, or for themselves in other groups', async () => {
    const client = lab.client(mallory)
    const post = (user: string, groups: readonly string[] = []) =>
      client.json('POST', keysPath, { body: { metadata: {}, spec: { user, groups } } })
    await expect(post('admin')).rejects.toMatchObject(forbidden(/cannot impersonate users "admin"/))
    await expect(post('mallory', ['system:masters'])).rejects.toMatchObject(forbidden(/cannot impersonate/))
    expect(await post('mallory')).toMatchObject({ status: { secretAccessKey: expect.any(String) } })
    const own = pathOf(mallory)
    await expect(
      client.json('PATCH', own, { ...merge, body: { spec: { groups: ['system:masters'] } } }),
    ).rejects.toMatchObject(forbidden(/cannot impersonate/))
    await expect(
      client.json('PATCH', own, { ...merge, body: { spec: { user: 'admin' } } }),
    ).rejects.toMatchObject(forbidden(/cannot impersonate/))
    await client.json('PATCH', own, { ...merge, body: { spec: { disabled: false } } })
  })

  it('but who has the verbs for it may', async () => {
    const trent = await lab.key('trent')
    await grant('trent', [
      {
        verbs: ['create', 'escalate', 'bind'],
        apiGroups: [rbac],
        resources: ['clusterroles', 'clusterrolebindings'],
      },
      { verbs: ['create'], apiGroups: ['plasmavmc.io'], resources: ['accesskeys'] },
      { verbs: ['impersonate'], apiGroups: [''], resources: ['users'], resourceNames: ['bob'] },
    ])
    const client = lab.client(trent)
    await client.json('POST', `${rbacPath}/clusterroles`, {
      body: { metadata: { name: 'big' }, rules: everything },
    })
    const subjects = [{ kind: 'User', name: 'nobody' }]
    const body = { metadata: { name: 'big' }, subjects, roleRef: { kind: 'ClusterRole', name: 'big' } }
    await client.json('POST', `${rbacPath}/clusterrolebindings`, { body })
    await client.json('POST', keysPath, { body: { metadata: {}, spec: { user: 'bob' } } })
    const other = { metadata: {}, spec: { user: 'carol' } }
    await expect(client.json('POST', keysPath, { body: other })).rejects.toMatchObject(forbidden(/"carol"/))
  })
})

describe('roles', () => {
  it('hold in their namespace, and end with their binding', async () => {
    const dave = await lab.key('dave')
    await grant(
      'dave',
      [{ verbs: ['list'], apiGroups: ['plasmavmc.io'], resources: ['virtualmachines'] }],
      true,
    )
    const client = lab.client(dave)
    expect(await client.json('GET', machines)).toMatchObject({ items: [] })
    await expect(client.json('GET', '/apis/plasmavmc.io/v1alpha1/virtualmachines')).rejects.toMatchObject(
      forbidden(/at the cluster scope/),
    )
    await lab.client().json('DELETE', `${rbacPath}/namespaces/default/rolebindings`)
    await until('it is over', () =>
      client.json('GET', machines).then(
        () => false,
        () => true,
      ),
    )
  })

  it('by the name of an object count for a list of that one alone', async () => {
    const erin = await lab.key('erin')
    const rules = { verbs: ['get', 'list'], apiGroups: ['plasmavmc.io'], resources: ['virtualmachines'] }
    await grant('erin', [{ ...rules, resourceNames: ['web'] }])
    const list = (fieldSelector?: string) =>
      lab.client(erin).json('GET', machines, { query: { fieldSelector } })
    expect(await list('metadata.name=web')).toMatchObject({ items: [] })
    for (const other of [
      undefined,
      'metadata.name=db',
      'metadata.name!=web',
      'metadata.name=web,metadata.name=db',
    ])
      await expect(list(other)).rejects.toMatchObject(forbidden(/cannot list/))
  })

  it.each([
    ['no verbs', { rules: [{ verbs: [], apiGroups: [''], resources: ['x'] }] }, /rules\[0\].verbs/],
    ['no group', { rules: [{ verbs: ['get'], resources: ['x'] }] }, /rules\[0\].apiGroups: Required/],
    ['no resource', { rules: [{ verbs: ['get'], apiGroups: [''] }] }, /rules\[0\].resources: Required/],
    ['paths in a namespace', { rules: [{ verbs: ['get'], nonResourceURLs: ['/'] }] }, /nonResourceURLs/],
  ])('with %s are refused', async (_, body, message) => {
    const path = `${rbacPath}/namespaces/default/roles`
    const role = { metadata: { name: 'bad' }, ...body }
    await expect(lab.client().json('POST', path, { body: role })).rejects.toThrow(message)
  })

  it('may have the names that Kubernetes gives them, and none with a slash', async () => {
    const path = `${rbacPath}/clusterroles`
    expect(await lab.client().text('GET', `${path}/system:basic-user`)).toContain('selfsubjectreviews')
    const role = { metadata: { name: 'a/b' }, rules: [] }
    await expect(lab.client().json('POST', path, { body: role })).rejects.toThrow(/metadata.name/)
  })
})

describe('impersonation', () => {
  let root: Credentials
  const who = (credentials: Credentials, ...flags: readonly string[]) =>
    lab.cli(credentials, ...flags, 'auth', 'whoami', '-o', 'json')
  beforeAll(async () => {
    root = await lab.key('ops')
    await grant('ops', [
      {
        verbs: ['impersonate'],
        apiGroups: [''],
        resources: ['users', 'groups'],
        resourceNames: ['bob', 'dev', 'qa'],
      },
    ])
  })

  it('is for who has the verb, and names both in the audit', async () => {
    const flags = ['--as', 'bob', '--as-group', 'dev', '--as-group', 'qa']
    const { code, out } = await who(root, ...flags)
    expect(code).toBe(0)
    expect(JSON.parse(out).status.userInfo).toEqual({
      username: 'bob',
      groups: ['dev', 'qa', 'system:authenticated'],
    })
    expect(lab.audits.at(-1)).toMatchObject({
      ...{
        user: { username: 'ops' },
        impersonatedUser: { username: 'bob', groups: ['dev', 'qa', 'system:authenticated'] },
      },
      responseStatus: { code: 201 },
    })
  })

  it.each([
    [
      'another user',
      ['--as', 'carol'],
      /User "ops" cannot impersonate resource "users" in API group "" at the cluster scope/,
    ],
    [
      'another group',
      ['--as', 'bob', '--as-group', 'system:masters'],
      /cannot impersonate resource "groups"/,
    ],
  ])('of %s is refused', async (_, flags, message) => {
    const { code, err } = await who(root, ...flags)
    expect(code).toBe(1)
    expect(err).toMatch(/Forbidden/)
    expect(JSON.parse(err).message).toMatch(message)
    expect(lab.audits.at(-1)).toMatchObject({ user: { username: 'ops' }, responseStatus: { code: 403 } })
  })

  it('gives no more than the other has', async () => {
    const { err } = await lab.cli(lab.admin, '--as', 'anybody', 'get', 'vms')
    expect(err).toMatch(/User "anybody" cannot list resource "virtualmachines"/)
    expect(
      (await lab.cli(lab.admin, '--as', 'anybody', '--as-group', 'system:masters', 'get', 'vms')).code,
    ).toBe(0)
  })
})

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Credentials } from '../../src/auth/sign.ts'
import { IdentitiesLab, until } from './identities-lab.ts'

let lab: IdentitiesLab
let alice: Credentials
let isOld = false
const timeout = 120_000

beforeAll(async () => {
  lab = await IdentitiesLab.start()
  alice = await lab.key('alice', ['ops'])
  isOld = /"minor": "27/.test(await lab.kubectl(alice, 'version', '--client', '-o', 'json'))
}, timeout)
afterAll(() => lab.close())

const admin = (...args: readonly string[]) => lab.kubectl(lab.admin, ...args)
const user = (...args: readonly string[]) => lab.kubectl(alice, ...args)

/** kubectl says no with its exit code, too. */
const saysNo = (asking: Promise<string>) =>
  asking.then(
    () => false,
    ({ stdout }: { stdout?: string }) => stdout === 'no\n',
  )

/** Who somebody is. kubectl 1.27 knows `auth whoami` by a beta version alone, which clusters serve only if told to. */
async function who(credentials: Credentials, ...as: readonly string[]) {
  const file = join(lab.dataDir, 'question.json')
  writeFileSync(file, '{}')
  const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews'
  const asking = isOld ? ['create', '--raw', path, '-f', file] : ['auth', 'whoami', '-o', 'json']
  const { status } = JSON.parse(await lab.kubectl(credentials, ...asking, ...as))
  return [status.userInfo.username, ...status.userInfo.groups]
}

it('whoami says who, with groups', { timeout }, async () => {
  if (isOld) return expect(user('auth', 'whoami')).rejects.toThrow('not enabled in the cluster')
  expect(await user('auth', 'whoami')).toMatch(/Username +alice\nGroups +\[ops system:authenticated\]/)
  expect(await admin('auth', 'whoami', '-o', 'jsonpath={.status.userInfo.groups[0]}')).toBe('system:masters')
})

it('can-i follows roles and bindings that kubectl made', { timeout }, async () => {
  expect(await admin('auth', 'can-i', '*', '*')).toContain('yes')
  expect(await saysNo(user('auth', 'can-i', 'list', 'vms'))).toBe(true)
  await admin('create', 'role', 'reader', '--verb=get,list,watch', '--resource=vms,virtualmachines/console')
  await admin('create', 'rolebinding', 'readers', '--role=reader', '--group=ops')
  await until('alice may', async () => (await user('auth', 'can-i', 'list', 'vms')).includes('yes'))
  expect(await user('auth', 'can-i', 'get', 'vm/web', '--subresource=console')).toContain('yes')
  expect(await saysNo(user('auth', 'can-i', 'delete', 'vms'))).toBe(true)
  expect(await saysNo(user('auth', 'can-i', 'list', 'vms', '-n', 'other'))).toBe(true)
  expect(await saysNo(user('auth', 'can-i', 'get', '/metrics'))).toBe(true)
  expect(await user('auth', 'can-i', 'get', '/apis')).toContain('yes')
  expect(await user('get', 'vms')).toContain('No resources found')
  await expect(user('get', 'hosts')).rejects.toThrow(
    /hosts.plasmavmc.io is forbidden: User "alice" cannot list resource "hosts" in API group "plasmavmc.io" at the cluster scope/,
  )
})

it('can-i --list tells all of it', { timeout }, async () => {
  const list = await user('auth', 'can-i', '--list')
  expect(list).toMatch(/virtualmachines.plasmavmc.io +\[\] +\[\] +\[get list watch\]/)
  expect(list).toMatch(/selfsubjectreviews.authentication.k8s.io +\[\] +\[\] +\[create\]/)
  expect(list).toMatch(/\[\/apis\/\*\] +\[\] +\[get\]/)
  expect(await admin('auth', 'can-i', '--list')).toMatch(/\*\.\* +\[\] +\[\] +\[\*\]/)
})

it('--as asks for another, for who may', { timeout }, async () => {
  expect(await who(lab.admin, '--as', 'bob', '--as-group', 'dev')).toEqual([
    'bob',
    'dev',
    'system:authenticated',
  ])
  expect(await saysNo(admin('auth', 'can-i', 'list', 'hosts', '--as', 'bob'))).toBe(true)
  await expect(user('get', 'vms', '--as', 'bob')).rejects.toThrow(
    /User "alice" cannot impersonate resource "users"/,
  )
})

it('cluster roles are bound, shown and described', { timeout }, async () => {
  await admin('create', 'clusterrolebinding', 'alice-views', '--clusterrole=view', '--user=alice')
  await until('alice may', async () => (await user('get', 'hosts')).includes('No resources found'))
  expect(await admin('get', 'clusterrolebindings', '-o', 'wide')).toMatch(
    /alice-views +ClusterRole\/view +\S+ +alice/,
  )
  expect(await admin('describe', 'clusterrole', 'view')).toMatch(
    /virtualmachines.plasmavmc.io +\[\] +\[\] +\[get list watch\]/,
  )
  expect(await admin('get', 'role', 'reader', '-o', 'yaml')).toContain('virtualmachines/console')
})

it('auth reconcile and apply write them again', { timeout }, async () => {
  const file = join(lab.dataDir, 'role.yaml')
  const role = (verbs: string) =>
    writeFileSync(
      file,
      [
        'apiVersion: rbac.authorization.k8s.io/v1',
        'kind: ClusterRole',
        'metadata: {name: operator}',
        `rules: [{apiGroups: [plasmavmc.io], resources: [virtualmachines], verbs: [${verbs}]}]`,
      ].join('\n'),
    )
  role('get')
  expect(await admin('apply', '-f', file)).toContain('created')
  role('"get", "list"')
  expect(await admin('auth', 'reconcile', '-f', file)).toContain('operator reconciled')
  expect(await admin('get', 'clusterrole', 'operator', '-o', 'jsonpath={.rules}')).toContain('list')
})

it('an editor keeps an apply set, which a viewer does not see', { timeout }, async () => {
  const [editor, viewer] = [await lab.key('ed'), await lab.key('vi')]
  await admin('create', 'rolebinding', 'ed', '--clusterrole=edit', '--user=ed')
  await admin('create', 'rolebinding', 'vi', '--clusterrole=view', '--user=vi')
  await until('both may', async () => {
    const asks = [editor, viewer].map((one) => lab.kubectl(one, 'auth', 'can-i', 'list', 'cm'))
    return (await Promise.all(asks)).every((answer) => answer.includes('yes'))
  })
  const file = join(lab.dataDir, 'set.json')
  const map = (name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } })
  const apply = (...names: readonly string[]) => {
    writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: names.map(map) }))
    return lab.kubectl(editor, 'apply', '--prune', '--applyset=web', '-n', 'default', '-f', file)
  }
  vi.stubEnv('KUBECTL_APPLYSET', 'true')
  try {
    await apply('one', 'two')
    expect(await apply('one')).toMatch(/two pruned/)
  } finally {
    vi.unstubAllEnvs()
  }
  expect(await lab.kubectl(viewer, 'get', 'cm', '-o', 'name')).toBe('configmap/one\n')
  await expect(lab.kubectl(viewer, 'get', 'secrets')).rejects.toThrow(
    /User "vi" cannot list resource "secrets" in API group "" in the namespace "default"/,
  )
})

it('a key that is made tells its secret that once', { timeout }, async () => {
  const file = join(lab.dataDir, 'key.yaml')
  const lines = ['apiVersion: plasmavmc.io/v1alpha1', 'kind: AccessKey', 'metadata: {generateName: key-}']
  writeFileSync(file, [...lines, 'spec: {user: carol, groups: [ops]}'].join('\n'))
  const told = await admin(
    'create',
    '-f',
    file,
    '-o',
    'jsonpath={.status.accessKeyId} {.status.secretAccessKey}',
  )
  const [accessKeyId = '', secretAccessKey = ''] = told.split(' ')
  expect(await who({ accessKeyId, secretAccessKey })).toContain('carol')
  expect(await admin('get', 'accesskeys', '-o', 'yaml')).not.toContain(secretAccessKey)
  expect(await admin('get', 'accesskeys')).toMatch(/NAME +USER +GROUPS +DISABLED +EXPIRES +LAST USED +AGE/)
})

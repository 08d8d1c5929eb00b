import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { allowed, type Target } from '../../src/auth/authorize.ts'
import { amended, defaultClusterRoleBindings, defaultClusterRoles } from '../../src/auth/default-roles.ts'
import { authenticatedGroup } from '../../src/auth/identity.ts'
import { ruleAllows } from '../../src/auth/rule-match.ts'
import { uncovered } from '../../src/auth/rules-cover.ts'
import { type Grants, indexGrants, rulesOf } from '../../src/auth/rules-of.ts'
import type { PolicyRule, Subject } from '../../src/resources/rbac.ts'

const own = 'plasmavmc.io'
const vm = (more: object = {}) => ({ group: own, resource: 'virtualmachines', ...more })
const rule = (more: Partial<PolicyRule> = {}): PolicyRule => ({
  ...{ verbs: ['get'], apiGroups: [own], resources: ['virtualmachines'] },
  ...more,
})

describe('a rule', () => {
  const cases: readonly (readonly [string, PolicyRule, string, Target, boolean])[] = [
    ['what it says', rule(), 'get', vm(), true],
    ['another verb', rule(), 'delete', vm(), false],
    ['another group', rule(), 'get', { group: '', resource: 'virtualmachines' }, false],
    [
      'the core group',
      rule({ apiGroups: [''], resources: ['events'] }),
      'get',
      { group: '', resource: 'events' },
      true,
    ],
    ['another resource', rule(), 'get', { group: own, resource: 'hosts' }, false],
    ['a subresource that is not said', rule(), 'get', vm({ subresource: 'console' }), false],
    [
      'a subresource',
      rule({ resources: ['virtualmachines/console'] }),
      'get',
      vm({ subresource: 'console' }),
      true,
    ],
    ['a subresource alone', rule({ resources: ['virtualmachines/console'] }), 'get', vm(), false],
    ['a subresource of all', rule({ resources: ['*/console'] }), 'get', vm({ subresource: 'console' }), true],
    [
      'another subresource of all',
      rule({ resources: ['*/log'] }),
      'get',
      vm({ subresource: 'console' }),
      false,
    ],
    [
      'everything',
      rule({ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }),
      'x',
      vm({ subresource: 'y' }),
      true,
    ],
    ['a name', rule({ resourceNames: ['a'] }), 'get', vm({ name: 'a' }), true],
    ['another name', rule({ resourceNames: ['a'] }), 'get', vm({ name: 'b' }), false],
    ['no name where names are said', rule({ resourceNames: ['a'] }), 'get', vm(), false],
    ['a * that is a name', rule({ resourceNames: ['*'] }), 'get', vm({ name: 'a' }), false],
    [
      'a path for a resource rule',
      rule({ resources: ['*'], apiGroups: ['*'] }),
      'get',
      { path: '/metrics' },
      false,
    ],
    ['a resource for a path rule', { verbs: ['*'], nonResourceURLs: ['*'] }, 'get', vm(), false],
    ['a path', { verbs: ['get'], nonResourceURLs: ['/metrics'] }, 'get', { path: '/metrics' }, true],
    [
      'a longer path',
      { verbs: ['get'], nonResourceURLs: ['/metrics'] },
      'get',
      { path: '/metrics/x' },
      false,
    ],
    [
      'what a path begins',
      { verbs: ['get'], nonResourceURLs: ['/apis/*'] },
      'get',
      { path: '/apis/x/y' },
      true,
    ],
    ['what it does not', { verbs: ['get'], nonResourceURLs: ['/apis/*'] }, 'get', { path: '/apis' }, false],
  ]
  it.each(cases)('judges %s', (_, one, verb, target, expected) => {
    expect(ruleAllows(one, verb, target)).toBe(expected)
  })
})

const words = (...all: string[]) => fc.uniqueArray(fc.constantFrom(...all), { minLength: 1, maxLength: 3 })
const anyRule: fc.Arbitrary<PolicyRule> = fc.oneof(
  fc.record({
    verbs: words('get', 'list', '*'),
    apiGroups: words('', own, '*'),
    resources: words('a', 'a/x', 'b', '*/x', '*'),
    resourceNames: fc.option(words('m', 'n'), { nil: undefined }) as fc.Arbitrary<string[]>,
  }),
  fc.record({ verbs: words('get', 'list', '*'), nonResourceURLs: words('/a', '/a/b', '/a/*', '/*', '*') }),
)
const anyRules = fc.array(anyRule, { maxLength: 4 })
const anyTarget: fc.Arbitrary<Target> = fc.oneof(
  fc.record(
    {
      group: fc.constantFrom('', own, 'other'),
      resource: fc.constantFrom('a', 'b', 'c'),
      subresource: fc.constantFrom('x', 'y'),
      name: fc.constantFrom('m', 'n', 'o'),
    },
    { requiredKeys: ['group', 'resource'] },
  ) as fc.Arbitrary<Target>,
  fc.record({ path: fc.constantFrom('/a', '/a/b', '/a/b/c', '/z') }),
)

describe('what rules cover', () => {
  it('is never less than what the rules that they may grant allow', () => {
    const verbs = fc.constantFrom('get', 'list', 'delete')
    fc.assert(
      fc.property(anyRules, anyRules, anyTarget, verbs, (mine, wanted, target, verb) => {
        const granted = wanted.filter((one) => uncovered(mine, [one]).length === 0)
        const allows = (rules: readonly PolicyRule[]) => rules.some((one) => ruleAllows(one, verb, target))
        return !allows(granted) || allows(mine)
      }),
      { numRuns: 5_000 },
    )
  })

  it('has every rule cover itself, and the sum of its parts', () => {
    fc.assert(fc.property(anyRules, (rules) => uncovered(rules, rules).length === 0))
    const both = rule({ verbs: ['get', 'list'] })
    expect(uncovered([rule(), rule({ verbs: ['list'] })], [both])).toEqual([])
    expect(uncovered([rule()], [both])).toEqual([both])
  })

  it('wants a * for a *, and no name less than all', () => {
    expect(uncovered([rule()], [rule({ verbs: ['*'] })])).toHaveLength(1)
    expect(uncovered([rule({ resourceNames: ['a'] })], [rule()])).toHaveLength(1)
    expect(uncovered([rule()], [rule({ resourceNames: ['a'] })])).toEqual([])
    const paths = (...nonResourceURLs: string[]) => ({ verbs: ['get'], nonResourceURLs })
    expect(uncovered([paths('/apis/*')], [paths('/apis/*', '/apis/x')])).toEqual([])
    expect(uncovered([paths('/apis/*')], [paths('/*')])).toHaveLength(1)
  })

  it('does not look through rules without end', () => {
    const many = Array.from({ length: 200 }, (_, i) => `w${i}`)
    const huge = { verbs: many, apiGroups: many, resources: many, resourceNames: many }
    const all = { verbs: ['*'], apiGroups: ['*'], resources: ['*'] }
    expect(uncovered([all], [huge])).toEqual([huge])
  })
})

function grants(subjects: Subject[]): Grants {
  const roleRef = (kind: 'Role' | 'ClusterRole', name: string) => ({
    ...{ apiGroup: 'rbac.authorization.k8s.io' as const, kind, name },
  })
  const head = (kind: string, name: string, namespace?: string) => ({
    ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind },
    metadata: { name, ...(namespace && { namespace }) },
  })
  return {
    roles: [{ ...head('Role', 'r', 'one'), rules: [rule({ verbs: ['delete'] })] }],
    clusterRoles: [{ ...head('ClusterRole', 'c'), rules: [rule()] }],
    roleBindings: [
      { ...head('RoleBinding', 'b', 'one'), subjects, roleRef: roleRef('Role', 'r') },
      { ...head('RoleBinding', 'c', 'one'), subjects, roleRef: roleRef('ClusterRole', 'c') },
      // Of a role of another namespace, and of one that is not there.
      { ...head('RoleBinding', 'd', 'two'), subjects, roleRef: roleRef('Role', 'r') },
    ],
    clusterRoleBindings: [
      { ...head('ClusterRoleBinding', 'x'), subjects, roleRef: roleRef('ClusterRole', 'gone') },
    ],
  }
}

describe('bindings', () => {
  const alice = { name: 'alice', groups: ['ops'] }
  const index = indexGrants(grants([{ kind: 'User', name: 'alice' }]))
  const target = (namespace?: string) => vm({ name: 'a', ...(namespace && { namespace }) })

  it('grant in their namespace alone', () => {
    expect(allowed(alice, 'delete', target('one'), index)).toBe(true)
    expect(allowed(alice, 'get', target('one'), index)).toBe(true)
    expect(allowed(alice, 'delete', target('two'), index)).toBe(false)
    expect(allowed(alice, 'get', target(), index)).toBe(false)
    expect(allowed({ ...alice, name: 'bob' }, 'get', target('one'), index)).toBe(false)
  })

  it('grant to groups and to service accounts, and to nobody who only has such a name', () => {
    const ofGroup = indexGrants(grants([{ kind: 'Group', name: 'ops' }]))
    expect(allowed({ name: 'x', groups: ['ops'] }, 'get', target('one'), ofGroup)).toBe(true)
    expect(allowed({ name: 'ops', groups: [] }, 'get', target('one'), ofGroup)).toBe(false)
    const account = indexGrants(grants([{ kind: 'ServiceAccount', name: 'bot', namespace: 'n' }]))
    expect(allowed({ name: 'system:serviceaccount:n:bot', groups: [] }, 'get', target('one'), account)).toBe(
      true,
    )
    expect(allowed({ name: 'bot', groups: [] }, 'get', target('one'), account)).toBe(false)
  })

  it('let a namespace be read by who may read namespaces in it', () => {
    const all = grants([{ kind: 'User', name: 'alice' }])
    const rules = [{ verbs: ['get'], apiGroups: [''], resources: ['namespaces'] }]
    const some = indexGrants({ ...all, roles: all.roles.map((role) => ({ ...role, rules })) })
    const namespace = (name: string) => ({ group: '', resource: 'namespaces', name })
    expect(allowed(alice, 'get', namespace('one'), some)).toBe(true)
    expect(allowed(alice, 'get', namespace('two'), some)).toBe(false)
  })
})

describe('the default roles', () => {
  const rulesBy = Object.fromEntries(defaultClusterRoles.map(({ metadata, rules }) => [metadata.name, rules]))
  it('each hold what the smaller one has', () => {
    for (const [big, small] of [
      ['cluster-admin', 'admin'],
      ['admin', 'edit'],
      ['edit', 'view'],
    ] as const) {
      expect(uncovered(rulesBy[big] ?? [], rulesBy[small] ?? []), big).toEqual([])
      expect(uncovered(rulesBy[small] ?? [], rulesBy[big] ?? []), small).not.toEqual([])
    }
  })

  it('let nobody but cluster-admin make keys, read leases or impersonate', () => {
    for (const name of ['admin', 'edit', 'view']) {
      const may = (verb: string, target: Target) =>
        (rulesBy[name] ?? []).some((one) => ruleAllows(one, verb, target))
      expect(may('create', { group: own, resource: 'accesskeys' }), name).toBe(false)
      expect(may('get', { group: own, resource: 'accesskeys', name: 'x' }), name).toBe(false)
      expect(may('impersonate', { group: '', resource: 'users', name: 'x' }), name).toBe(false)
      expect(may('update', { group: own, resource: 'hosts', name: 'x' }), name).toBe(false)
      expect(may('get', { path: '/metrics' }), name).toBe(false)
    }
  })

  it('let a viewer read ConfigMaps and no Secrets, an editor everything with both', () => {
    const may = (name: string, verb: string, resource: string) =>
      (rulesBy[name] ?? []).some((one) => ruleAllows(one, verb, { group: '', resource, name: 'x' }))
    for (const verb of ['get', 'list', 'watch']) {
      expect(may('view', verb, 'configmaps'), verb).toBe(true)
      expect(may('view', verb, 'secrets'), verb).toBe(false)
      for (const resource of ['configmaps', 'secrets']) expect(may('edit', verb, resource)).toBe(true)
    }
    for (const verb of ['create', 'update', 'patch', 'delete', 'deletecollection'])
      for (const resource of ['configmaps', 'secrets'])
        expect([may('view', verb, resource), may('edit', verb, resource)], verb).toEqual([false, true])
  })

  it('give everybody who signs the reviews of themselves and discovery, and nothing else', () => {
    const index = indexGrants({
      ...{ roles: [], roleBindings: [], clusterRoles: defaultClusterRoles },
      clusterRoleBindings: defaultClusterRoleBindings,
    })
    const verbs = rulesOf(index, { name: 'x', groups: [authenticatedGroup] }, 'default').flatMap(
      (one) => one.verbs,
    )
    expect(new Set(verbs)).toEqual(new Set(['create', 'get']))
    const nobody = { name: 'x', groups: [authenticatedGroup] }
    expect(allowed(nobody, 'get', { path: '/apis' }, index)).toBe(true)
    expect(allowed(nobody, 'list', vm(), index)).toBe(false)
  })

  it('are amended, never cut, and left alone where their owner says so', () => {
    const [wanted] = defaultClusterRoles.filter(({ metadata }) => metadata.name === 'view')
    if (!wanted) throw new Error('no role view')
    const mine = rule({ resources: ['mine'] })
    const there = { ...wanted, rules: [mine, ...wanted.rules.slice(1)] }
    const next = amended(there, wanted)
    expect(next?.rules).toContainEqual(mine)
    expect(uncovered(next?.rules ?? [], wanted.rules)).toEqual([])
    expect(amended({ ...wanted, rules: [mine, ...wanted.rules] }, wanted)).toBeUndefined()
    expect(amended({ ...there, metadata: { ...there.metadata, annotations: {} } }, wanted)).toBeUndefined()
  })
})

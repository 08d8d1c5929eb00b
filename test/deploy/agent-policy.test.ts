import { readFileSync } from 'node:fs'
import { celEnv, isCelError, parse, plan } from '@bufbuild/cel'
import { strings } from '@bufbuild/cel/ext'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { type AgentWrite, agentRefusal } from '../../src/auth/agent.ts'
import type { KubeObject, ResourceDefinition } from '../../src/resources/define.ts'
import { Host, Lease } from '../../src/resources/kinds.ts'
import { roleRights } from '../../src/resources/rights.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

interface Policy {
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly failurePolicy: string
    readonly matchConstraints: {
      readonly resourceRules: readonly { apiGroups: string[]; resources: string[] }[]
    }
    readonly matchConditions: readonly { readonly expression: string }[]
    readonly variables: readonly { readonly name: string; readonly expression: string }[]
    readonly validations: readonly { readonly expression: string; readonly messageExpression: string }[]
  }
}

const [policy, binding] = parseAllDocuments(
  readFileSync('deploy/kubernetes/base/agent-policy.yaml', 'utf8'),
).map((doc) => doc.toJS()) as [Policy, { spec: { policyName: string; validationActions: string[] } }]
const { matchConstraints, matchConditions, variables, validations, failurePolicy } = policy.spec

interface User {
  readonly username: string
  readonly groups?: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

const env = celEnv({ funcs: strings })
const plans = new Map<string, ReturnType<typeof plan>>()

function evaluate(expression: string, values: Record<string, unknown>): unknown {
  const planned = plans.get(expression) ?? plan(env, parse(expression))
  plans.set(expression, planned)
  const result = planned(values as never)
  if (isCelError(result)) throw new Error(`${expression}: ${result.message}`, { cause: result })
  return result
}

/** Why the policy denies a write, as an API server decides it: variables are worked out where they are asked for. */
function denial(userInfo: User, { kind, before, after, status }: AgentWrite): string | undefined {
  const operation = before ? (after ? 'UPDATE' : 'DELETE') : 'CREATE'
  const request = {
    ...{ operation, userInfo, resource: { group: kind.group, resource: kind.plural } },
    // Left out where there is none.
    ...(status && { subResource: 'status' }),
  }
  const values: Record<string, unknown> = { request, object: after ?? null, oldObject: before ?? null }
  if (!matchConditions.every(({ expression }) => evaluate(expression, values) === true)) return undefined
  const asked = Object.fromEntries(
    variables.map(({ name, expression }) => [name, () => evaluate(expression, values)] as const),
  )
  for (const { expression, messageExpression } of validations) {
    const used = Object.entries(asked).filter(([name]) => needs(expression, operation).has(name))
    const known = { ...values, variables: Object.fromEntries(used.map(([name, value]) => [name, value()])) }
    if (evaluate(expression, known) !== true) {
      const all = Object.entries(asked).filter(([name]) => messageExpression.includes(`variables.${name}`))
      return String(
        evaluate(messageExpression, {
          ...values,
          variables: Object.fromEntries(all.map(([n, v]) => [n, v()])),
        }),
      )
    }
  }
  return undefined
}

/** The variables that an expression comes to ask for: those of an object that is not there are behind the operation. */
function needs(expression: string, operation: string): ReadonlySet<string> {
  const names = [...expression.matchAll(/variables\.(\w+)/g)].map(([, name = '']) => name)
  return new Set(names.filter((name) => operation === 'UPDATE' || !['before', 'after'].includes(name)))
}

const agent = (host: string): User => ({ username: `system:host:${host}`, groups: ['system:hosts', 'x'] })
const pod = (host?: string): User => ({
  username: 'system:serviceaccount:plasmavmc-system:plasmavmc-agent',
  groups: ['system:serviceaccounts'],
  ...(host !== undefined && { extra: { 'authentication.kubernetes.io/node-name': [host] } }),
})

const some = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
const given = (members: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined))

const meta = fc
  .record({
    labels: some(fc.constantFrom({ a: 'b' }, { a: 'c' })),
    annotations: some(fc.constantFrom({ a: 'b' }, { a: 'c' })),
    finalizers: some(fc.constantFrom(['x.io/a'], ['x.io/b'])),
    ownerReferences: some(fc.constant([{ apiVersion: 'v1', kind: 'X', name: 'x', uid: 'u' }])),
  })
  .map(given)
const machine = fc
  .record({
    metadata: meta.map((rest) => ({ name: 'web', namespace: 'default', ...rest })),
    spec: fc.constantFrom({ memory: '1Gi' }, { memory: '2Gi' }, { memory: '1Gi', disks: [{ name: 'a' }] }),
    status: some(
      fc.constantFrom({}, { hostName: 'a' }, { hostName: 'b' }, { phase: 'Running', hostName: 'a' }),
    ),
  })
  .map(given) as fc.Arbitrary<unknown> as fc.Arbitrary<KubeObject>
const named = (...names: string[]) =>
  fc.constantFrom(...names).map((name) => ({ metadata: { name } }) as KubeObject)
const of = (kind: unknown, object: fc.Arbitrary<KubeObject>): fc.Arbitrary<AgentWrite> =>
  fc
    .record({ before: some(object), after: some(object), status: fc.boolean() })
    .filter(({ before, after }) => before !== undefined || after !== undefined)
    .map(({ status, ...objects }) => ({ kind: kind as ResourceDefinition, status, ...given(objects) }))
const sameName = ({ before, after }: AgentWrite) =>
  !before || !after || before.metadata.name === after.metadata.name
const write = fc.oneof(
  { weight: 3, arbitrary: of(VirtualMachine, machine) },
  of(Host, named('a', 'b')).filter(sameName),
  of(Lease, named('host-a', 'host-b', 'controller')).filter(sameName),
)

test('denies an agent what our own server denies it, in the same words', () => {
  fc.assert(
    fc.property(write, fc.constantFrom(agent('a'), pod('a')), (asked, user) => {
      expect(denial(user, asked)).toBe(agentRefusal('a', asked))
    }),
    { numRuns: 2_000 },
  )
})

test('an agent of no host writes nothing; who is no agent is none of its business', () => {
  const mine: AgentWrite = { kind: Host as never, status: false, after: { metadata: { name: 'a' } } as never }
  for (const user of [
    pod(),
    { username: 'system:host:', groups: ['system:hosts'] },
    { username: 'a', groups: ['system:hosts'] },
  ])
    expect(denial(user, mine)).toMatch(/^an agent is known by the node that its token is bound to/)
  const foreign: AgentWrite = { ...mine, after: { metadata: { name: 'b' } } as never }
  for (const user of [
    { username: 'system:host:a' },
    { username: 'jane', groups: ['people'] },
    { ...pod('a'), username: 'system:serviceaccount:plasmavmc-system:plasmavmc-controller' },
    { ...pod('a'), username: 'system:serviceaccount:other:plasmavmc-agent' },
  ])
    expect(denial(user, foreign)).toBeUndefined()
})

test('sees whatever an agent’s rights let it write, and is in force', () => {
  expect(binding.spec).toEqual({ policyName: policy.metadata.name, validationActions: ['Deny'] })
  expect(failurePolicy).toBe('Fail')
  const writes = ['create', 'update', 'patch', 'delete', 'deletecollection']
  const { rights = [] } = roleRights.find(({ role }) => role === 'agent') ?? {}
  const unseen = rights
    .filter(({ verbs }) => verbs.some((verb) => writes.includes(verb)))
    .flatMap(({ group, resources }) => resources.map((resource) => ({ group, resource })))
    .filter(({ group, resource }) => {
      return !matchConstraints.resourceRules.some(
        (rule) =>
          rule.apiGroups.includes(group) && [resource, '*/*'].some((one) => rule.resources.includes(one)),
      )
    })
  // Events are of nobody's host.
  expect(unseen).toEqual([{ group: '', resource: 'events' }])
})

import { userOf } from '../auth/audit.ts'
import type { Target } from '../auth/authorize.ts'
import type { Identity } from '../auth/identity.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { parse } from '../resources/parse.ts'
import {
  reviewKinds,
  SelfSubjectAccessReview,
  SelfSubjectReview,
  SelfSubjectRulesReview,
  type SubjectAccessReview,
} from '../resources/reviews.ts'
import { ApiError } from '../store/errors.ts'
import { invalid } from '../store/validate.ts'
import { type Answer, type Call, methodNotAllowed, objectOf, unknownFields } from './call.ts'
import type { ServerDeps } from './deps.ts'

/** Whether a kind is a question: answered by {@link review}, kept nowhere. */
export function isReview(kind: ResourceDefinition): boolean {
  return reviewKinds.includes(kind)
}

type Deps = Pick<ServerDeps, 'authorize' | 'rulesOf'>

/** Answers who one is, or whether one may, as it stands in the object that is created. @throws ApiError Invalid, MethodNotAllowed */
export function review(call: Call, identity: Identity, deps: Deps): Answer {
  const { kind, name } = call.path
  if (call.method !== 'POST' || name !== undefined) throw methodNotAllowed()
  const given = objectOf(call, call.body)
  const warnings = unknownFields(call, given)
  // A status that came with the question is no answer, whatever it is: kubectl before 1.31 sends one full of nulls.
  const { status: _, ...question } = given
  const parsed = parse(kind, question)
  if (!parsed.ok) throw invalid(kind, '', parsed.causes)
  const { object } = parsed
  return { code: 201, body: { ...object, status: statusOf(kind, object, identity, deps) }, warnings }
}

function statusOf(kind: ResourceDefinition, object: KubeObject, identity: Identity, deps: Deps): unknown {
  if (kind === (SelfSubjectReview as ResourceDefinition)) return { userInfo: userOf(identity) }
  if (kind === (SelfSubjectRulesReview as ResourceDefinition)) return rulesStatus(object, identity, deps)
  if (kind === (SelfSubjectAccessReview as ResourceDefinition))
    return verdict((object as SelfSubjectAccessReview).spec, identity, deps)
  const { spec } = object as SubjectAccessReview
  const { user = '', groups = [] } = spec
  if (user === '' && groups.length === 0)
    throw required(kind, 'spec.user', 'at least one of user or groups must be specified')
  return verdict(spec, { name: user, groups }, deps)
}

type Asked = SelfSubjectAccessReview['spec']

function verdict(spec: Asked, identity: Identity, deps: Deps) {
  const { verb, target } = questionOf(spec)
  return { allowed: deps.authorize(identity, verb, target) }
}

function questionOf({ resourceAttributes: resource, nonResourceAttributes: path }: Asked) {
  if ((resource === undefined) === (path === undefined)) {
    const why = 'exactly one of nonResourceAttributes or resourceAttributes must be specified'
    throw required(SelfSubjectAccessReview, 'spec.resourceAttributes', why)
  }
  if (path) return { verb: path.verb ?? '', target: { path: path.path ?? '' } }
  const { group = '', resource: plural = '', verb = '', subresource, namespace, name } = resource ?? {}
  const target: Target = {
    ...{ group, resource: plural },
    ...(subresource && { subresource }),
    ...(namespace && { namespace }),
    ...(name && { name }),
  }
  return { verb, target }
}

function required(kind: ResourceDefinition, field: string, why: string): ApiError {
  return invalid(kind, '', [{ reason: 'FieldValueRequired', field, message: `Required value: ${why}` }])
}

function rulesStatus(object: KubeObject, identity: Identity, { rulesOf }: Deps) {
  const { namespace } = (object as SelfSubjectRulesReview).spec
  if (!namespace) throw new ApiError('BadRequest', 'no namespace on request')
  const rules = rulesOf?.(identity, namespace) ?? []
  return {
    resourceRules: rules
      .filter(({ resources }) => resources?.length)
      .map(({ nonResourceURLs: _, ...rule }) => rule),
    nonResourceRules: rules
      .filter(({ nonResourceURLs }) => nonResourceURLs?.length)
      .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
    incomplete: false,
  }
}

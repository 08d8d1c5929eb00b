import { PlasmaError } from '../lib/errors.ts'
import type { Target } from './authorize.ts'
import { type HeaderPair, valuesOf } from './header-pairs.ts'
import { authenticatedGroup, type Identity } from './identity.ts'

const longest = 253
const mostGroups = 100

/**
 * Whom a request wants to be, by Kubernetes' headers (docs "User impersonation"); undefined where nobody else. It is
 * nobody's right yet: see {@link impersonationTargets}.
 * @throws PlasmaError `BadImpersonation` that names the header
 */
export function impersonated(headers: readonly HeaderPair[]): Identity | undefined {
  const asked = headers.filter(([name]) => name.startsWith('impersonate-'))
  if (asked.length === 0) return undefined
  const stranger = asked.find(([name]) => name !== 'impersonate-user' && name !== 'impersonate-group')
  if (stranger) throw bad(stranger[0], 'only Impersonate-User and Impersonate-Group are known here')
  const [name, more] = valuesOf(asked, 'impersonate-user')
  if (name === undefined) throw bad('impersonate-group', 'needs Impersonate-User')
  if (more !== undefined) throw bad('impersonate-user', 'stands more than once')
  const groups = valuesOf(asked, 'impersonate-group')
  if (groups.length > mostGroups) throw bad('impersonate-group', `stands more than ${mostGroups} times`)
  for (const [header, value] of asked)
    if (value === '' || value.length > longest) throw bad(header, `must have 1 to ${longest} characters`)
  return { name, groups: [...new Set([...groups, authenticatedGroup])] }
}

function bad(header: string, why: string): PlasmaError {
  return new PlasmaError('BadImpersonation', `${header}: ${why}`)
}

/** What one must have the verb `impersonate` for to be that identity: the user, and each group that is no matter of course. */
export function impersonationTargets({
  name,
  groups,
}: Identity): readonly Exclude<Target, { path: string }>[] {
  return [userTarget(name), ...groups.filter((one) => one !== authenticatedGroup).map(groupTarget)]
}

const account = /^system:serviceaccount:([^:]+):([^:]+)$/

function userTarget(user: string): Exclude<Target, { path: string }> {
  const [, namespace, name] = account.exec(user) ?? []
  return namespace !== undefined && name !== undefined
    ? { group: '', resource: 'serviceaccounts', namespace, name }
    : { group: '', resource: 'users', name: user }
}

const groupTarget = (name: string) => ({ group: '', resource: 'groups', name })

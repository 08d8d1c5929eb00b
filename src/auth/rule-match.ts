import type { PolicyRule } from '../resources/rbac.ts'
import type { Target } from './authorize.ts'

/**
 * Whether one rule allows it, as Kubernetes reads rules (docs "Using RBAC Authorization"): every list must have what is
 * asked for or a `*`; a subresource is named with its resource; names, where there are any, must have the one asked for.
 */
export function ruleAllows(rule: PolicyRule, verb: string, target: Target): boolean {
  if (!has(rule.verbs, verb)) return false
  if ('path' in target) return (rule.nonResourceURLs ?? []).some((url) => urlCovers(url, target.path))
  return (
    has(rule.apiGroups, target.group) &&
    (rule.resources ?? []).some((one) => resourceCovers(one, target.resource, target.subresource)) &&
    nameFits(rule.resourceNames, target.name)
  )
}

function has(list: readonly string[] | undefined, word: string): boolean {
  return list?.some((one) => one === '*' || one === word) === true
}

function nameFits(names: readonly string[] | undefined, name: string | undefined): boolean {
  return !names?.length || (name !== undefined && names.includes(name))
}

/** `*` is everything; `*` before a slash is that subresource of every resource. */
export function resourceCovers(rule: string, resource: string, subresource: string | undefined): boolean {
  if (rule === '*') return true
  if (subresource === undefined || subresource === '') return rule === resource
  return rule === `${resource}/${subresource}` || rule === `*/${subresource}`
}

/** Whether a URL of a rule stands for a path: it is the same, or ends with `*` and begins it. */
export function urlCovers(rule: string, path: string): boolean {
  return rule === '*' || rule === path || (rule.endsWith('*') && path.startsWith(rule.slice(0, -1)))
}

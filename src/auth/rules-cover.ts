import type { PolicyRule } from '../resources/rbac.ts'
import { resourceCovers, urlCovers } from './rule-match.ts'

/** A rule about one thing. */
type Atom =
  | { readonly verb: string; readonly url: string }
  | { readonly verb: string; readonly group: string; readonly resource: string; readonly name?: string }

/** Comparisons of one question; more are not made, and count as not covered. */
const maxWork = 2_000_000

/**
 * What of `wanted` somebody with the rules `own` does not have: nobody may grant that (Kubernetes: "Privilege escalation
 * prevention and bootstrapping"). Each single thing that is wanted must be allowed by one rule of theirs.
 * @returns those rules of `wanted` of which something is missing; all of them where they are too many to be looked through
 */
export function uncovered(own: readonly PolicyRule[], wanted: readonly PolicyRule[]): readonly PolicyRule[] {
  const work = wanted.reduce((sum, rule) => sum + sizeOf(rule), 0) * Math.max(1, own.length)
  if (work > maxWork) return wanted
  return wanted.filter((rule) => {
    for (const atom of atomsOf(rule)) if (!own.some((one) => covers(one, atom))) return true
    return false
  })
}

function sizeOf({ verbs, apiGroups, resources, resourceNames, nonResourceURLs }: PolicyRule): number {
  const length = (list: readonly string[] | undefined) => list?.length ?? 0
  const resourceAtoms = length(apiGroups) * length(resources) * Math.max(1, length(resourceNames))
  return verbs.length * (resourceAtoms + length(nonResourceURLs))
}

function* atomsOf({
  verbs,
  apiGroups = [],
  resources = [],
  resourceNames = [],
  nonResourceURLs = [],
}: PolicyRule): Generator<Atom> {
  for (const verb of verbs) {
    for (const url of nonResourceURLs) yield { verb, url }
    for (const group of apiGroups)
      for (const resource of resources) {
        if (resourceNames.length === 0) yield { verb, group, resource }
        for (const name of resourceNames) yield { verb, group, resource, name }
      }
  }
}

/** A `*` that is wanted is covered by a `*` alone: it stands for what is still to come, too. */
function covers(rule: PolicyRule, atom: Atom): boolean {
  const has = (list: readonly string[] | undefined, word: string) =>
    list?.some((one) => one === '*' || one === word) === true
  if (!has(rule.verbs, atom.verb)) return false
  if ('url' in atom) return (rule.nonResourceURLs ?? []).some((url) => urlCovers(url, atom.url))
  const [resource = '', subresource] = atom.resource.split('/', 2)
  const names = rule.resourceNames
  return (
    has(rule.apiGroups, atom.group) &&
    (rule.resources ?? []).some((one) => resourceCovers(one, resource, subresource)) &&
    (!names?.length || (atom.name !== undefined && names.includes(atom.name)))
  )
}

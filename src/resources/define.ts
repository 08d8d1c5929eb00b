import type { z } from 'zod'
import type { Cause } from './parse.ts'

export const group = 'plasmavmc.io'

/** Kubernetes' ObjectMeta, as far as this system uses it. */
export interface ObjectMeta {
  name: string
  /** What its name began with, where the rest was made up for it. */
  generateName?: string
  namespace?: string
  uid?: string
  resourceVersion?: string
  generation?: number
  creationTimestamp?: string
  deletionTimestamp?: string
  deletionGracePeriodSeconds?: number
  finalizers?: string[]
  labels?: Record<string, string>
  annotations?: Record<string, string>
  ownerReferences?: OwnerReference[]
  /** Who owns which fields; see merge/managers.ts. */
  managedFields?: readonly unknown[]
}

export interface OwnerReference {
  apiVersion: string
  kind: string
  name: string
  uid: string
  controller?: boolean
  blockOwnerDeletion?: boolean
}

export interface KubeObject {
  apiVersion: string
  kind: string
  metadata: ObjectMeta
  spec?: unknown
  status?: unknown
}

/** A printer column, as in a CustomResourceDefinition; `path` is the simple JSONPath subset `.a.b.c` and `[?(@.type=="X")]`. */
export interface Column {
  readonly name: string
  readonly type: 'string' | 'integer' | 'date'
  readonly path: string
  /** 0 shows always; 1 only with `-o wide`. */
  readonly priority?: number
  readonly description?: string
  /** What our own tables show, at a wall time in ms, where a path cannot say it; Kubernetes' tables show `path`. */
  readonly value?: (object: never, now: number) => unknown
}

/**
 * A rule across fields, said once for us (`holds`) and once for a Kubernetes API server (`cel`).
 * `at` is the path of the object it is evaluated on, `[]` for a list's elements: `spec.disks[]`; '' is the whole object.
 */
export interface Rule {
  readonly at: string
  /** The member from `at` on that a Kubernetes API server names where the rule is broken: `nbd.host`. */
  readonly path?: string
  readonly cel: string
  readonly message: string
  /** Gets the value at `at`, defaults applied. @returns true when it holds, or where it does not. */
  readonly holds: (value: never) => boolean | RuleBreach
}

/** Where a rule is broken, and how where that is not as the rule says. */
export interface RuleBreach {
  /** From `at` on: `nbd.port`, `[a.key]`; '' for what stands at `at` itself. */
  readonly field: string
  readonly message?: string
  readonly duplicate?: boolean
  /** What is wrong, where that is not what stands at `field`: a key. */
  readonly value?: unknown
  /** These say nothing of the value. */
  readonly reason?: 'FieldValueForbidden' | 'FieldValueTooLong'
}

/** Everything about a kind; types, validation, CRD, OpenAPI, table and REST routes derive from it. */
export interface ResourceDefinition<T extends KubeObject = KubeObject> {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly singular: string
  readonly shortNames: readonly string[]
  readonly categories: readonly string[]
  readonly namespaced: boolean
  /** Whether status is a subresource, written apart. */
  readonly hasStatus: boolean
  /** What can be done with it where that is not everything: reviews are only created, and kept nowhere. */
  readonly verbs?: readonly string[]
  /** What its names may be: a DNS subdomain unless told; any path segment (roles), or an access key's id. */
  readonly names?: 'segment' | 'key'
  readonly description: string
  /** The top-level members besides apiVersion, kind and metadata; defaults included. */
  readonly body: z.ZodObject
  readonly columns: readonly Column[]
  /** Paths of texts that field selectors may ask for, besides metadata.name and metadata.namespace: `status.phase`. */
  readonly selectable: readonly string[]
  /**
   * Whether spec.finalizers keep an object that is being deleted, too, which only the subresource `finalize` writes, and
   * status.phase tells that it is: Kubernetes' Namespace alone.
   */
  readonly finalized: boolean
  /** A label that every object has, with its name as the value. */
  readonly nameLabel?: string
  readonly rules: readonly Rule[]
  /** What is wrong with an update by what was there before, both with defaults. A Kubernetes API server is not told of it: what must hold there, too, is for a controller to see to. */
  readonly changes?: (before: never, after: never) => readonly Cause[]
  /** Carries the object type; has no value at run time. */
  readonly object?: T
}

type Definition = {
  group?: string
  version?: string
  kind: string
  plural: string
  shortNames?: readonly string[]
  categories?: readonly string[]
  namespaced?: boolean
  hasStatus?: boolean
  verbs?: readonly string[]
  names?: 'segment' | 'key'
  description: string
  columns?: readonly Column[]
  selectable?: readonly string[]
  finalized?: boolean
  nameLabel?: string
  rules?: readonly Rule[]
  changes?: (before: never, after: never) => readonly Cause[]
}

/** Defines a kind of this system's own group unless `group` says otherwise. Namespaced, with a status, by default. */
export function defineResource<B extends z.ZodObject>(
  definition: Definition & { body: B },
): ResourceDefinition<KubeObject & z.output<B>> {
  return Object.freeze({
    group,
    version: 'v1alpha1',
    singular: definition.kind.toLowerCase(),
    shortNames: [],
    categories: [],
    namespaced: true,
    hasStatus: true,
    columns: [],
    selectable: [],
    finalized: false,
    rules: [],
    ...definition,
  })
}

export type ObjectOf<D> = D extends ResourceDefinition<infer T> ? T : never

/** `apiVersion` of a definition: `v1` for Kubernetes' core group, `group/version` otherwise. */
export function apiVersionOf(definition: Pick<ResourceDefinition, 'group' | 'version'>): string {
  return definition.group === '' ? definition.version : `${definition.group}/${definition.version}`
}

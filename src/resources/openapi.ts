import { objectSchema } from './crd.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from './define.ts'
import { metaSchemas } from './meta-schemas.ts'
import type { StructuralSchema } from './schema.ts'

export type OpenApi = Readonly<Record<string, unknown>>
type Kind = ResourceDefinition<KubeObject>
type Flavour = { readonly refs: string; readonly v2: boolean }

const v3: Flavour = { refs: '#/components/schemas/', v2: false }
const v2: Flavour = { refs: '#/definitions/', v2: true }

const info = { title: 'PlasmaVMC', version: 'v1alpha1' }
const gvkKey = 'x-kubernetes-group-version-kind'

/** Schema names follow Kubernetes: the group reversed, the version, the kind. */
function schemaName(kind: Kind): string {
  const group = kind.group === '' ? 'core' : kind.group
  return `${group.split('.').reverse().join('.')}.${kind.version}.${kind.kind}`
}

function gvkOf({ group, version, kind }: Kind) {
  return { group, version, kind }
}

function bodyOf(kind: Kind, { refs, v2: old }: Flavour) {
  const whole: StructuralSchema = objectSchema(kind)
  const ref = `${refs}${metaSchemas.objectMetaName}`
  const description = "Standard object's metadata."
  // OpenAPI 2 has no siblings of $ref; OpenAPI 3.0 says them through allOf.
  const metadata = old ? { $ref: ref } : { description, default: {}, allOf: [{ $ref: ref }] }
  return { ...whole, properties: { ...whole.properties, metadata }, [gvkKey]: [gvkOf(kind)] }
}

function listOf(kind: Kind, { refs }: Flavour) {
  return {
    type: 'object',
    description: `A list of ${kind.kind}.`,
    required: ['items'],
    properties: {
      apiVersion: { type: 'string' },
      kind: { type: 'string' },
      metadata: { type: 'object' },
      items: { type: 'array', items: { $ref: `${refs}${schemaName(kind)}` } },
    },
    [gvkKey]: [{ ...gvkOf(kind), kind: `${kind.kind}List` }],
  }
}

function parameter(name: string, where: 'query' | 'path', type: string, description: string, old: boolean) {
  const required = where === 'path' ? { required: true } : {}
  const typed = old ? { type, uniqueItems: true } : { schema: { type, uniqueItems: true } }
  return { name, in: where, description, ...required, ...typed }
}

function operation(kind: Kind, action: string, flavour: Flavour) {
  const { v2: old, refs } = flavour
  const writes = action === 'post' || action === 'put' || action === 'patch'
  const queries = [
    parameter('dryRun', 'query', 'string', 'All: check, do not store.', old),
    parameter('fieldManager', 'query', 'string', 'Who changes it.', old),
    parameter('fieldValidation', 'query', 'string', 'Ignore, Warn or Strict: unknown fields.', old),
  ]
  if (action === 'patch')
    queries.push(parameter('force', 'query', 'boolean', 'Of an apply: takes what is owned by others.', old))
  const schema = { $ref: `${refs}${schemaName(kind)}` }
  const patches = ['json-patch+json', 'merge-patch+json', 'apply-patch+yaml'].map(
    (type) => `application/${type}`,
  )
  const both = ['application/json', 'application/yaml']
  const consumes = action === 'patch' ? patches : both
  const content = action === 'patch' ? { schema: { type: 'object' } } : { schema }
  const body = old
    ? { consumes, produces: both }
    : { requestBody: { content: Object.fromEntries(consumes.map((type) => [type, content])) } }
  const ok = old ? { schema } : { content: Object.fromEntries(both.map((type) => [type, { schema }])) }
  return {
    description: `${action} ${kind.kind}`,
    'x-kubernetes-action': action,
    [gvkKey]: gvkOf(kind),
    ...(writes ? { parameters: queries, ...body } : {}),
    responses: { '200': { description: 'OK', ...ok } },
  }
}

function operations(kind: Kind, actions: readonly string[], path: string, flavour: Flavour) {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1] as string)
  return {
    ...Object.fromEntries(actions.map((action) => [action, operation(kind, action, flavour)])),
    parameters: names.map((name) => parameter(name, 'path', 'string', `The ${name}.`, flavour.v2)),
  }
}

function pathsOf(kind: Kind, flavour: Flavour): Record<string, unknown> {
  const root = `${kind.group === '' ? '/api' : '/apis'}/${apiVersionOf(kind)}`
  const many = `${root}${kind.namespaced ? '/namespaces/{namespace}' : ''}/${kind.plural}`
  // What is only created is asked for nowhere else.
  if (kind.verbs && !kind.verbs.includes('get')) return { [many]: operations(kind, ['post'], many, flavour) }
  const wanted: [string, string[]][] = [
    [many, ['get', 'post', 'delete']],
    [`${many}/{name}`, ['get', 'put', 'patch', 'delete']],
  ]
  if (kind.namespaced) wanted.push([`${root}/${kind.plural}`, ['get']])
  if (kind.hasStatus) wanted.push([`${many}/{name}/status`, ['get', 'put', 'patch']])
  return Object.fromEntries(wanted.map(([path, actions]) => [path, operations(kind, actions, path, flavour)]))
}

function schemasOf(kinds: readonly Kind[], flavour: Flavour): Record<string, unknown> {
  return Object.fromEntries([
    ...kinds.flatMap((kind) => [
      [schemaName(kind), bodyOf(kind, flavour)],
      [`${schemaName(kind)}List`, listOf(kind, flavour)],
    ]),
    ...metaSchemas.all(flavour.refs),
  ])
}

/** The OpenAPI 2.0 document of `/openapi/v2`, from which its protobuf form is made, too. */
export function openApiV2(kinds: readonly ResourceDefinition[]): OpenApi {
  return {
    swagger: '2.0',
    info,
    paths: Object.assign({}, ...kinds.map((kind) => pathsOf(kind, v2))),
    definitions: schemasOf(kinds, v2),
  }
}

/**
 * The OpenAPI 3.0 document of one group version (`plasmavmc.io/v1alpha1`, `v1`), served at
 * `/openapi/v3/apis/<groupVersion>` and `/openapi/v3/api/v1`.
 * @returns undefined where no kind has that group version
 */
export function openApiV3(kinds: readonly ResourceDefinition[], groupVersion: string): OpenApi | undefined {
  const own = kinds.filter((kind) => apiVersionOf(kind) === groupVersion)
  if (own.length === 0) return undefined
  return {
    openapi: '3.0.0',
    info,
    paths: Object.assign({}, ...own.map((kind) => pathsOf(kind, v3))),
    components: { schemas: schemasOf(own, v3) },
  }
}

/**
 * The index of `/openapi/v3`: each group version's path (`apis/plasmavmc.io/v1alpha1`, `api/v1`) and its address.
 * @param hashOf a document, by its path, which makes its address one of a content that never changes
 */
export function openApiV3Index(
  kinds: readonly ResourceDefinition[],
  hashOf: (path: string) => string,
): OpenApi {
  const paths = kinds.map((kind) => `${kind.group === '' ? 'api' : 'apis'}/${apiVersionOf(kind)}`)
  return {
    paths: Object.fromEntries(
      [...new Set(paths)].map((path) => {
        const address = `/openapi/v3/${path}`
        return [path, { serverRelativeURL: `${address}?hash=${hashOf(address)}` }]
      }),
    ),
  }
}

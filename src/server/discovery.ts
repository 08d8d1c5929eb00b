import { sha256Hex } from '../auth/hash.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import { openApiV2, openApiV3, openApiV3Index } from '../resources/openapi.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { actionOf } from '../resources/vm-actions.ts'
import { type DiscoveryVersion, jsonOr, negotiateDiscovery, negotiatePlain, type Syntax } from './accept.ts'
import { openApiProto, openApiV2Asked, openApiV2Proto } from './openapi-proto.ts'
import { yamlText } from './yaml-text.ts'

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']

/** As in Kubernetes, namespaces are deleted one by one. */
function verbsOf(kind: ResourceDefinition): readonly string[] {
  return kind.verbs ?? (kind.finalized ? verbs.filter((verb) => verb !== 'deletecollection') : verbs)
}

function groupsOf(kinds: readonly ResourceDefinition[]) {
  const groups = new Map<string, string[]>()
  for (const { group, version } of kinds) {
    if (group === '') continue
    const versions = groups.get(group) ?? []
    if (!versions.includes(version)) groups.set(group, [...versions, version])
  }
  return groups
}

function groupObject(name: string, versions: readonly string[]) {
  const list = versions.map((version) => ({ groupVersion: `${name}/${version}`, version }))
  return { name, versions: list, preferredVersion: list[0] }
}

/** The subresources of a kind with their verbs. */
export function subresources(kind: ResourceDefinition): Readonly<Record<string, readonly string[]>> {
  const actions = Object.keys(actionOf).map((name) => [name, ['create']] as const)
  return {
    ...(kind.hasStatus && { status: ['get', 'patch', 'update'] }),
    ...(kind.finalized && { finalize: ['update'] }),
    ...(kind === (VirtualMachine as ResourceDefinition) && {
      ...Object.fromEntries(actions),
      ...{ log: ['get'], console: ['get'], vnc: ['get'] },
    }),
  }
}

function resourceList(kinds: readonly ResourceDefinition[], group: string, version: string) {
  const served = kinds.filter((kind) => kind.group === group && kind.version === version)
  const resources = served.flatMap((kind) => [
    {
      ...{
        name: kind.plural,
        singularName: kind.singular,
        namespaced: kind.namespaced,
        kind: kind.kind,
        verbs: verbsOf(kind),
      },
      ...(kind.shortNames.length > 0 && { shortNames: kind.shortNames }),
      ...(kind.categories.length > 0 && { categories: kind.categories }),
    },
    ...Object.entries(subresources(kind)).map(([name, does]) => ({
      ...{ name: `${kind.plural}/${name}`, singularName: '', namespaced: kind.namespaced, kind: kind.kind },
      verbs: does,
    })),
  ])
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: group === '' ? version : `${group}/${version}`,
    resources,
  }
}

/** The kinds of a group version as apidiscovery.k8s.io shows them. */
function aggregatedVersion(kinds: readonly ResourceDefinition[], group: string, version: string) {
  const served = kinds.filter((kind) => kind.group === group && kind.version === version)
  const resources = served.map((kind) => {
    const responseKind = { group, version, kind: kind.kind }
    const below = Object.entries(subresources(kind)).map(([subresource, does]) => ({
      ...{ subresource, responseKind, verbs: does },
    }))
    return {
      ...{ resource: kind.plural, responseKind, scope: kind.namespaced ? 'Namespaced' : 'Cluster' },
      ...{ singularResource: kind.singular, verbs: verbsOf(kind) },
      ...(kind.shortNames.length > 0 && { shortNames: kind.shortNames }),
      ...(kind.categories.length > 0 && { categories: kind.categories }),
      ...(below.length > 0 && { subresources: below }),
    }
  })
  return { version, resources, freshness: 'Current' }
}

/** `/api` or `/apis` with all that is below it in one answer (KEP-3352). */
function aggregated(kinds: readonly ResourceDefinition[], root: string, version: DiscoveryVersion) {
  const groups = root === '/api' ? new Map([['', ['v1']]]) : groupsOf(kinds)
  const items = [...groups].map(([name, versions]) => ({
    metadata: { name, creationTimestamp: null },
    versions: versions.map((one) => aggregatedVersion(kinds, name, one)),
  }))
  return {
    ...{ kind: 'APIGroupDiscoveryList', apiVersion: `apidiscovery.k8s.io/${version}`, metadata: {}, items },
  }
}

type Makers = ReadonlyMap<string, () => unknown>

function makersOf(kinds: readonly ResourceDefinition[]): Map<string, () => unknown> {
  const groups = groupsOf(kinds)
  const makers = new Map<string, () => unknown>([
    [
      '/api',
      () => ({
        ...{ kind: 'APIVersions', apiVersion: 'v1', versions: ['v1'] },
        serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: '' }],
      }),
    ],
    ['/api/v1', () => resourceList(kinds, '', 'v1')],
    [
      '/apis',
      () => ({
        ...{ kind: 'APIGroupList', apiVersion: 'v1' },
        groups: [...groups].map(([name, versions]) => groupObject(name, versions)),
      }),
    ],
    ['/openapi/v2', () => openApiV2(kinds)],
    ['/openapi/v3/api/v1', () => openApiV3(kinds, 'v1')],
  ])
  for (const [name, versions] of groups) {
    makers.set(`/apis/${name}`, () => ({
      ...{ kind: 'APIGroup', apiVersion: 'v1', ...groupObject(name, versions) },
    }))
    for (const version of versions) {
      makers.set(`/apis/${name}/${version}`, () => resourceList(kinds, name, version))
      makers.set(`/openapi/v3/apis/${name}/${version}`, () => openApiV3(kinds, `${name}/${version}`))
    }
  }
  return makers
}

/** A document as it is sent. */
export interface Document {
  readonly content: Buffer
  readonly type: string
  /** SHA-256 of the content in hex. */
  readonly hash: string
}

/** The documents by which clients find out what is served: each is made when it is first asked for. */
export class Documents {
  readonly #kinds: readonly ResourceDefinition[]
  readonly #makers: Makers
  readonly #made = new Map<string, Document>()

  constructor(kinds: readonly ResourceDefinition[]) {
    this.#kinds = kinds
    const makers = makersOf(kinds)
    makers.set('/openapi/v3', () =>
      openApiV3Index(kinds, (path) => this.#of(path, 'application/json', makers.get(path)).hash),
    )
    this.#makers = makers
  }

  /**
   * The document of a path in the form that an Accept header asks for; undefined where there is none.
   * @throws ApiError NotAcceptable
   */
  find(path: string, accept: string | undefined): Document | undefined {
    const make = this.#makers.get(path)
    if (!make) return undefined
    if (path.startsWith('/openapi/')) return this.#openApi(path, accept, make)
    if (path !== '/api' && path !== '/apis') return this.#written(path, negotiatePlain(accept), '', make)
    const { version, syntax } = negotiateDiscovery(accept)
    if (version === 'plain') return this.#written(path, syntax, '', make)
    const parameters = `;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`
    return this.#written(path, syntax, parameters, () => aggregated(this.#kinds, path, version))
  }

  /** In JSON, one of them also in protobuf; like Kubernetes not in YAML. */
  #openApi(path: string, accept: string | undefined, make: () => unknown): Document {
    const binary = path === '/openapi/v2' ? [openApiV2Asked, openApiV2Proto] : []
    if (jsonOr(binary, accept) === 'json') return this.#of(path, 'application/json', make)
    return this.#of(`${path} proto`, openApiV2Proto, () => openApiProto(openApiV2(this.#kinds)))
  }

  #written(path: string, syntax: Syntax, parameters: string, make: () => unknown): Document {
    const type = `application/${syntax}${parameters}`
    const written = syntax === 'json' ? make : () => Buffer.from(yamlText(make()))
    return this.#of(`${path} ${type}`, type, written)
  }

  #of(key: string, type: string, make: (() => unknown) | undefined): Document {
    const known = this.#made.get(key)
    if (known) return known
    const made = make?.()
    const content = Buffer.isBuffer(made) ? made : Buffer.from(JSON.stringify(made))
    const document = { content, type, hash: sha256Hex(content) }
    this.#made.set(key, document)
    return document
  }
}

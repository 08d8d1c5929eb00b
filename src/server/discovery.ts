import type { ResourceDefinition } from '../resources/define.ts'
import { openApiV2, openApiV3, openApiV3Index } from '../resources/openapi.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { actionOf } from '../resources/vm-actions.ts'

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']

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
        verbs,
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

/** The documents by which kubectl finds out what is served, by path. Computed once. */
export function discovery(
  kinds: readonly ResourceDefinition[],
  address: string,
): ReadonlyMap<string, unknown> {
  const documents = new Map<string, unknown>()
  const groups = groupsOf(kinds)
  documents.set('/api', {
    ...{ kind: 'APIVersions', apiVersion: 'v1', versions: ['v1'] },
    serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: address }],
  })
  documents.set('/api/v1', resourceList(kinds, '', 'v1'))
  const list = [...groups].map(([name, versions]) => groupObject(name, versions))
  documents.set('/apis', { kind: 'APIGroupList', apiVersion: 'v1', groups: list })
  documents.set('/openapi/v3/api/v1', openApiV3(kinds, 'v1'))
  for (const [name, versions] of groups) {
    documents.set(`/apis/${name}`, { kind: 'APIGroup', apiVersion: 'v1', ...groupObject(name, versions) })
    for (const version of versions) {
      documents.set(`/apis/${name}/${version}`, resourceList(kinds, name, version))
      documents.set(`/openapi/v3/apis/${name}/${version}`, openApiV3(kinds, `${name}/${version}`))
    }
  }
  documents.set('/openapi/v3', openApiV3Index(kinds))
  documents.set('/openapi/v2', openApiV2(kinds))
  return documents
}

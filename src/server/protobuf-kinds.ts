import type { Field, FieldType, Message } from './protobuf.ts'

type Row = readonly [number, string, FieldType, 'repeated'?]

/** Field numbers are those of Kubernetes' generated.proto files (k8s.io/api, k8s.io/apimachinery), which never change. */
function message(...rows: readonly Row[]): Message {
  return new Map(
    rows.map(([number, name, type, repeated]): [number, Field] => [
      number,
      { name, type, ...(repeated && { repeated: true }) },
    ]),
  )
}

const owner = message(
  ...([
    [1, 'kind', 'string'],
    [3, 'name', 'string'],
    [4, 'uid', 'string'],
    [5, 'apiVersion', 'string'],
  ] as const),
  ...([
    [6, 'controller', 'bool'],
    [7, 'blockOwnerDeletion', 'bool'],
  ] as const),
)

const objectMeta = message(
  ...([
    [1, 'name', 'string'],
    [2, 'generateName', 'string'],
    [3, 'namespace', 'string'],
  ] as const),
  ...([
    [5, 'uid', 'string'],
    [6, 'resourceVersion', 'string'],
    [7, 'generation', 'int'],
  ] as const),
  ...([
    [8, 'creationTimestamp', 'time'],
    [9, 'deletionTimestamp', 'time'],
  ] as const),
  ...([
    [10, 'deletionGracePeriodSeconds', 'int'],
    [11, 'labels', 'texts'],
    [12, 'annotations', 'texts'],
  ] as const),
  ...([
    [13, 'ownerReferences', owner, 'repeated'],
    [14, 'finalizers', 'string', 'repeated'],
  ] as const),
)

const metadata: Row = [1, 'metadata', objectMeta]
const spec = (...rows: readonly Row[]): Row => [2, 'spec', message(...rows)]
const texts = (number: number, name: string): Row => [number, name, 'string', 'repeated']

const rule = message(
  ...[texts(1, 'verbs'), texts(2, 'apiGroups'), texts(3, 'resources'), texts(4, 'resourceNames')],
  texts(5, 'nonResourceURLs'),
)
const role = message(metadata, [2, 'rules', rule, 'repeated'])

const subject = message(
  ...([
    [1, 'kind', 'string'],
    [2, 'apiGroup', 'string'],
    [3, 'name', 'string'],
    [4, 'namespace', 'string'],
  ] as const),
)
const roleRef = message([1, 'apiGroup', 'string'], [2, 'kind', 'string'], [3, 'name', 'string'])
const binding = message(metadata, [2, 'subjects', subject, 'repeated'], [3, 'roleRef', roleRef])

const resourceAttributes = message(
  ...([
    [1, 'namespace', 'string'],
    [2, 'verb', 'string'],
    [3, 'group', 'string'],
    [4, 'version', 'string'],
  ] as const),
  ...([
    [5, 'resource', 'string'],
    [6, 'subresource', 'string'],
    [7, 'name', 'string'],
  ] as const),
)
const access: readonly Row[] = [
  [1, 'resourceAttributes', resourceAttributes],
  [2, 'nonResourceAttributes', message([1, 'path', 'string'], [2, 'verb', 'string'])],
]

const preconditions = message([1, 'uid', 'string'], [2, 'resourceVersion', 'string'])
const deleteOptions = message(
  ...([
    [1, 'gracePeriodSeconds', 'int'],
    [2, 'preconditions', preconditions],
  ] as const),
  ...([
    [3, 'orphanDependents', 'bool'],
    [4, 'propagationPolicy', 'string'],
    [5, 'dryRun', 'string', 'repeated'],
  ] as const),
)

const core = {
  Namespace: message(metadata),
  ConfigMap: message(
    metadata,
    ...([
      [2, 'data', 'texts'],
      [3, 'binaryData', 'blobs'],
      [4, 'immutable', 'bool'],
    ] as const),
  ),
  Secret: message(
    metadata,
    ...([
      [2, 'data', 'blobs'],
      [3, 'type', 'string'],
      [4, 'stringData', 'texts'],
      [5, 'immutable', 'bool'],
    ] as const),
  ),
  DeleteOptions: deleteOptions,
}
const rbac = { Role: role, ClusterRole: role, RoleBinding: binding, ClusterRoleBinding: binding }
const authorization = {
  SelfSubjectAccessReview: message(metadata, spec(...access)),
  SelfSubjectRulesReview: message(metadata, spec([1, 'namespace', 'string'])),
  SubjectAccessReview: message(
    metadata,
    spec(
      ...access,
      [3, 'user', 'string'],
      texts(4, 'groups'),
      [5, 'extra', 'textLists'],
      [6, 'uid', 'string'],
    ),
  ),
}
const authentication = { SelfSubjectReview: message(metadata) }

const known: ReadonlyMap<string, Message> = new Map(
  Object.entries({
    v1: core,
    'rbac.authorization.k8s.io/v1': rbac,
    'authorization.k8s.io/v1': authorization,
    'authentication.k8s.io/v1': authentication,
  }).flatMap(([version, kinds]) =>
    Object.entries(kinds).map(([kind, one]): [string, Message] => [`${version} ${kind}`, one]),
  ),
)

/** The message of a kind that Go clients send as protobuf; undefined where it is none of those that are understood. */
export function messageFor(apiVersion: string, kind: string): Message | undefined {
  // DeleteOptions go by the version of what is deleted.
  return kind === 'DeleteOptions' ? deleteOptions : known.get(`${apiVersion} ${kind}`)
}

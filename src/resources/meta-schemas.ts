const text = (description: string) => ({ type: 'string', description })
const time = (description: string) => ({ type: 'string', format: 'date-time', description })
const number = (description: string) => ({ type: 'integer', format: 'int64', description })
const texts = (description: string) => ({
  type: 'object',
  description,
  additionalProperties: { type: 'string' },
})

const base = 'io.k8s.apimachinery.pkg.apis.meta.v1'
const objectMetaName = `${base}.ObjectMeta`
const ownerName = `${base}.OwnerReference`
const managedFieldsName = `${base}.ManagedFieldsEntry`

function objectMeta(refs: string) {
  return {
    type: 'object',
    description: 'What every object has: its name, identity and bookkeeping.',
    properties: {
      annotations: texts('Free notes of people and tools.'),
      creationTimestamp: time('When it was created. Read-only.'),
      deletionGracePeriodSeconds: number('Read-only.'),
      deletionTimestamp: time('When its deletion was asked for. Read-only.'),
      finalizers: {
        type: 'array',
        description: 'Who must finish before the object goes.',
        items: { type: 'string' },
      },
      generateName: text('Beginning of a name that the server completes.'),
      generation: number('Counts changes of the spec. Read-only.'),
      labels: texts('What selectors match.'),
      managedFields: {
        type: 'array',
        description: 'Who set which fields, and how. Kept by the server.',
        items: { $ref: `${refs}${managedFieldsName}` },
      },
      name: text('Unique within the namespace.'),
      namespace: text('Where the name is unique.'),
      ownerReferences: {
        type: 'array',
        description: 'Objects this one goes with.',
        items: { $ref: `${refs}${ownerName}` },
      },
      resourceVersion: text('Changes with every write; compared on update.'),
      uid: text('Unique over all time. Read-only.'),
    },
  }
}

const owner = {
  type: 'object',
  description: 'An object that owns another.',
  required: ['apiVersion', 'kind', 'name', 'uid'],
  properties: {
    apiVersion: text('Of the owner.'),
    kind: text('Of the owner.'),
    name: text('Of the owner.'),
    uid: text('Of the owner.'),
    controller: { type: 'boolean', description: 'The one that manages it.' },
    blockOwnerDeletion: { type: 'boolean', description: 'The owner waits for it.' },
  },
}

const managedFields = {
  type: 'object',
  description: 'The fields that one manager has set.',
  properties: {
    apiVersion: text('Version of the schema that the fields are of.'),
    fieldsType: text('FieldsV1.'),
    fieldsV1: { type: 'object', description: 'The fields, as a tree of path elements.' },
    manager: text('Who.'),
    operation: text('Apply or Update.'),
    subresource: text('status, where it was set through that.'),
    time: time('When they last changed.'),
  },
}

/** Schemas of Kubernetes' own metadata types for OpenAPI documents; `refs` is where the document keeps its schemas. */
export const metaSchemas = {
  objectMetaName,
  all: (refs: string): readonly (readonly [string, unknown])[] => [
    [objectMetaName, objectMeta(refs)],
    [ownerName, owner],
    [managedFieldsName, managedFields],
  ],
}

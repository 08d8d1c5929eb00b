import type { KubeObject, ResourceDefinition, Rule } from './define.ts'
import { bodySchema, type StructuralSchema } from './schema.ts'

/** A CustomResourceDefinition, apiextensions.k8s.io/v1. */
export interface Crd extends KubeObject {
  readonly spec: { readonly [member: string]: unknown }
}

/** @returns `schema` with the rule at the place that `steps` lead to: `['spec', 'disks[]']`. */
function placeRule(schema: StructuralSchema, steps: readonly string[], rule: Rule): StructuralSchema {
  const [step, ...rest] = steps
  if (step === undefined) {
    const validations = [
      ...(schema['x-kubernetes-validations'] ?? []),
      { rule: rule.cel, message: rule.message, ...(rule.path && { fieldPath: `.${rule.path}` }) },
    ]
    return { ...schema, 'x-kubernetes-validations': validations }
  }
  const name = step.replace('[]', '')
  const member = schema.properties?.[name]
  if (!member) throw new TypeError(`rule "${rule.message}" is at ${rule.at}, which the schema does not have`)
  const next =
    step === name || !member.items
      ? placeRule(member, rest, rule)
      : { ...member, items: placeRule(member.items, rest, rule) }
  return { ...schema, properties: { ...schema.properties, [name]: next } }
}

/**
 * The whole object's structural schema with its CEL rules; rules that CEL cannot say (`cel: ''`) are left out.
 * @throws TypeError where the kind uses something no structural schema can say, or a rule's place does not exist
 */
export function objectSchema(kind: ResourceDefinition): StructuralSchema {
  const body = bodySchema(kind)
  const whole: StructuralSchema = {
    type: 'object',
    description: kind.description,
    properties: {
      apiVersion: { type: 'string', description: 'Version of the schema this object is written in.' },
      kind: { type: 'string', description: 'What the object is.' },
      metadata: { type: 'object' },
      ...body.properties,
    },
    ...(body.required ? { required: body.required } : {}),
  }
  return kind.rules
    .filter((rule) => rule.cel !== '')
    .reduce((schema, rule) => placeRule(schema, rule.at.split('.'), rule), whole)
}

/**
 * The CustomResourceDefinition under which a Kubernetes API server serves this kind. Its CEL needs Kubernetes 1.30.
 * @throws TypeError as `objectSchema`
 */
export function toCrd(kind: ResourceDefinition): Crd {
  const { plural, singular, shortNames, categories } = kind
  const version = {
    name: kind.version,
    served: true,
    storage: true,
    schema: { openAPIV3Schema: objectSchema(kind) },
    ...(kind.hasStatus ? { subresources: { status: {} } } : {}),
    ...(kind.selectable.length > 0 && {
      selectableFields: kind.selectable.map((path) => ({ jsonPath: `.${path}` })),
    }),
    additionalPrinterColumns: kind.columns.map(({ name, type, path, priority, description }) => ({
      name,
      type,
      jsonPath: path,
      ...(priority ? { priority } : {}),
      ...(description ? { description } : {}),
    })),
  }
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${kind.group}` },
    spec: {
      group: kind.group,
      scope: kind.namespaced ? 'Namespaced' : 'Cluster',
      names: {
        kind: kind.kind,
        listKind: `${kind.kind}List`,
        plural,
        singular,
        ...(shortNames.length > 0 ? { shortNames } : {}),
        ...(categories.length > 0 ? { categories } : {}),
      },
      versions: [version],
    },
  }
}

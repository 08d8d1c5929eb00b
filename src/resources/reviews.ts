import { z } from 'zod'
import { defineResource, type ObjectOf, type ResourceDefinition } from './define.ts'

/** Questions that are answered and not kept: they can only be created. */
const asked = { version: 'v1', namespaced: false, verbs: ['create'] } as const
const authentication = { ...asked, group: 'authentication.k8s.io' } as const
const authorization = { ...asked, group: 'authorization.k8s.io' } as const

const text = z.string().optional()

const attributes = {
  resourceAttributes: z
    .object({
      ...{ namespace: text, verb: text, group: text, version: text, resource: text },
      ...{ subresource: text, name: text },
    })
    .optional()
    .describe('What is to be done to a resource.'),
  nonResourceAttributes: z
    .object({ path: text, verb: text })
    .optional()
    .describe('What is to be done to a path that is no resource.'),
}

const verdict = z
  .object({ allowed: z.boolean(), denied: z.boolean().optional(), reason: text, evaluationError: text })
  .optional()

/** Who am I? (kubectl auth whoami) */
export const SelfSubjectReview = defineResource({
  ...authentication,
  kind: 'SelfSubjectReview',
  plural: 'selfsubjectreviews',
  description: "Kubernetes' SelfSubjectReview: who the request came from.",
  body: z.object({
    status: z
      .object({
        userInfo: z
          .object({
            username: text,
            uid: text,
            groups: z.array(z.string()).optional(),
            extra: z.record(z.string(), z.array(z.string())).optional(),
          })
          .optional(),
      })
      .optional(),
  }),
})

/** May I? (kubectl auth can-i) */
export const SelfSubjectAccessReview = defineResource({
  ...authorization,
  kind: 'SelfSubjectAccessReview',
  plural: 'selfsubjectaccessreviews',
  description: "Kubernetes' SelfSubjectAccessReview: whether who asks may do something.",
  body: z.object({ spec: z.object(attributes), status: verdict }),
})
export type SelfSubjectAccessReview = ObjectOf<typeof SelfSubjectAccessReview>

/** May that one? */
export const SubjectAccessReview = defineResource({
  ...authorization,
  kind: 'SubjectAccessReview',
  plural: 'subjectaccessreviews',
  description: "Kubernetes' SubjectAccessReview: whether somebody may do something.",
  body: z.object({
    spec: z.object({
      ...attributes,
      user: text,
      groups: z.array(z.string()).optional(),
      uid: text,
      extra: z.record(z.string(), z.array(z.string())).optional(),
    }),
    status: verdict,
  }),
})
export type SubjectAccessReview = ObjectOf<typeof SubjectAccessReview>

const rule = {
  verbs: z.array(z.string()),
  apiGroups: z.array(z.string()).optional(),
  resources: z.array(z.string()).optional(),
  resourceNames: z.array(z.string()).optional(),
}

/** What may I? (kubectl auth can-i --list) */
export const SelfSubjectRulesReview = defineResource({
  ...authorization,
  kind: 'SelfSubjectRulesReview',
  plural: 'selfsubjectrulesreviews',
  description: "Kubernetes' SelfSubjectRulesReview: all that who asks may do in a namespace.",
  body: z.object({
    spec: z.object({ namespace: text }),
    status: z
      .object({
        resourceRules: z.array(z.object(rule)),
        nonResourceRules: z.array(
          z.object({ verbs: z.array(z.string()), nonResourceURLs: z.array(z.string()).optional() }),
        ),
        incomplete: z.boolean(),
        evaluationError: text,
      })
      .optional(),
  }),
})
export type SelfSubjectRulesReview = ObjectOf<typeof SelfSubjectRulesReview>

/** All of them. */
export const reviewKinds: readonly ResourceDefinition[] = [
  SelfSubjectReview,
  SelfSubjectAccessReview,
  SubjectAccessReview,
  SelfSubjectRulesReview,
]

import { group } from '../resources/define.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError, isReason } from '../store/errors.ts'
import { apply } from './apply-call.ts'
import { applyType, mediaType } from './body.ts'
import { type Answer, type Call, type HandlerDeps, objectOf, refOf, unknownFields, write } from './call.ts'
import { refuseForce } from './field-manager.ts'
import { jsonPatch, mergePatch } from './patch.ts'
import { strategicPatch } from './strategic.ts'

/** Patches without a resourceVersion are tried again when somebody else wrote in between. */
export const writeTries = 5

/** Patches an object as it is shown, defaults included; the store drops them again. @throws ApiError */
export async function patch(call: Call, deps: HandlerDeps): Promise<Answer> {
  if (mediaType(call.contentType) === applyType) return apply(call, deps)
  refuseForce(call)
  const change = patcherOf(call)
  for (let i = 1; ; i += 1) {
    const before = await deps.objects.get(call.path.kind, refOf(call))
    const patched = objectOf(call, change(before))
    const { resourceVersion } = before.metadata
    const wanted = patched.metadata.resourceVersion ?? resourceVersion
    const object =
      wanted === undefined
        ? patched
        : { ...patched, metadata: { ...patched.metadata, resourceVersion: wanted } }
    const warnings = unknownFields(call, object)
    try {
      return { code: 200, body: await write(call, object, deps), warnings }
    } catch (error) {
      // A patch that names another version than the current one asks for exactly this refusal.
      if (wanted !== resourceVersion || i >= writeTries || !isReason(error, 'Conflict')) throw error
    }
  }
}

function patcherOf(call: Call): (target: unknown) => unknown {
  const type = mediaType(call.contentType)
  // Kubernetes knows strategies for its own kinds only.
  if (call.path.kind.group !== group && type === 'application/strategic-merge-patch+json')
    return (target) => strategicPatch(target, call.body)
  if (type === 'application/merge-patch+json') {
    if (!isRecord(call.body)) throw new ApiError('BadRequest', 'a merge patch is an object')
    return (target) => mergePatch(target, call.body)
  }
  if (type === 'application/json-patch+json') return (target) => jsonPatch(target, call.body)
  const supported = `application/json-patch+json, application/merge-patch+json, ${applyType}`
  throw new ApiError(
    'UnsupportedMediaType',
    `the body of the request was in an unknown format - accepted media types include: ${supported}`,
  )
}

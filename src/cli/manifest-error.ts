import { errorObject, renderError, ServerError } from './failure.ts'
import type { Source } from './manifests.ts'
import { stepsOf } from './places.ts'
import { similarTo } from './similar.ts'

/** For a field that does not exist: the one of the same place that was probably meant. */
async function meantInstead(kind: string, field: string): Promise<string | undefined> {
  const [{ fieldNames }, { findKind }] = await Promise.all([
    import('../resources/explain.ts'),
    import('../resources/kinds.ts'),
  ])
  const definition = findKind(kind)
  const names = stepsOf(field).filter((step) => typeof step === 'string')
  if (!definition) return undefined
  return similarTo(names.at(-1) ?? '', fieldNames(definition, names.slice(0, -1)))
}

/** One line a cause, each with the place of its field: `vm.yaml:7: spec.memory: Invalid value: …`. */
async function causeLines(error: ServerError, source: Source): Promise<readonly string[]> {
  const causes = (error.status.details?.causes ?? []).filter(({ field }) => field)
  return Promise.all(
    causes.map(async ({ field = '', message = 'invalid' }) => {
      const long = field === 'metadata.annotations' && message.startsWith('Too long')
      if (long)
        return `  ${source.at}: too long: apply keeps the manifest in an annotation, of 256 KiB at most\n`
      const strange = message === 'unknown field'
      const instead = strange ? await meantInstead(source.manifest.kind, field) : undefined
      const hint = instead ? `; did you mean ${instead}?` : ''
      return `  ${source.placeOf(field)}: ${field}: ${message}${hint}\n`
    }),
  )
}

const isFieldConflict = ({ status }: ServerError) =>
  status.details?.causes?.some(({ reason }) => reason === 'FieldManagerConflict') === true
const conflictHelp =
  '  to do: take these fields out of the manifest and leave them to their managers, or take their values over, or take the fields with --force-conflicts\n'

/**
 * An error that one manifest caused, for people: with file and line, of every field where the server names some; or
 * as a Status, as JSON.
 */
export async function renderManifestError(error: unknown, source: Source, json: boolean): Promise<string> {
  if (json) return `${JSON.stringify(errorObject(error), null, 2)}\n`
  if (!(error instanceof ServerError)) return renderError(error)
  if (isFieldConflict(error))
    return `Error from server (Conflict) (${source.at}): ${error.message}\n${conflictHelp}`
  const lines = await causeLines(error, source)
  const { kind, metadata } = source.manifest
  if (lines.length > 0)
    return `Error from server (${error.code}): ${kind} "${metadata.name}" is refused:\n${lines.join('')}`
  return renderError(error).replace('\n', ` (${source.at})\n`)
}

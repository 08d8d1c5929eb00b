import { UsageError } from './failure.ts'
import type { ObjectView } from './targets.ts'

/** What `--for` asks of an object. */
export interface Expectation {
  readonly what: string
  readonly done: (object: ObjectView | undefined) => boolean
}

/**
 * The value at a simple JSONPath: `.status.disks[0].state`, `.metadata.labels['a.b/c']`.
 * @param advice what to write instead of one that is not understood @throws UsageError
 */
export function jsonPath(
  path: string,
  advice = 'write jsonpath={.status.phase}=Running',
): (object: unknown) => unknown {
  const inner = path.replace(/^\{(.*)\}$/, '$1').replace(/^\$/, '')
  const steps = [...inner.matchAll(/\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']+)'\]/g)]
  if (inner === '' || steps.map((s) => s[0]).join('') !== inner) {
    throw new UsageError(`"${path}" is no path that is understood here`, advice)
  }
  const keys = steps.map(([, member, index, quoted]) => member ?? index ?? quoted ?? '')
  return (object) =>
    keys.reduce<unknown>(
      (value, key) =>
        value !== null && typeof value === 'object' ? (value as Record<string, unknown>)[key] : undefined,
      object,
    )
}

/** Reads `--for`: delete, condition=TYPE[=STATUS], jsonpath={PATH}[=VALUE], as kubectl wait. @throws UsageError */
export function expectation(text: string): Expectation {
  if (text === 'delete') return { what: 'its deletion', done: (object) => object === undefined }
  if (text.startsWith('condition=')) {
    const [type = '', status = 'True'] = text.slice('condition='.length).split('=')
    const holds = (o: ObjectView) =>
      o.status?.conditions?.some(
        (c) => c.type.toLowerCase() === type.toLowerCase() && c.status.toLowerCase() === status.toLowerCase(),
      ) === true
    return { what: `condition ${type}=${status}`, done: (object) => object !== undefined && holds(object) }
  }
  const match = /^jsonpath=(\{[^}]*\}|'\{[^}]*\}'|[^=]+)(?:=(.*))?$/.exec(text)
  if (match) {
    const [, path = '', value] = match
    const read = jsonPath(path.replaceAll(/^'|'$/g, ''))
    const holds = (found: unknown) => (value === undefined ? found !== undefined : String(found) === value)
    return { what: text.slice('jsonpath='.length), done: (o) => o !== undefined && holds(read(o)) }
  }
  throw new UsageError(
    `--for=${text} is not understood`,
    'write --for=condition=Ready, --for=delete or --for=jsonpath={.status.phase}=Running',
  )
}

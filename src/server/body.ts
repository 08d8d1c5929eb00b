import { isScalar, LineCounter, parseDocument, visit, type YAMLMap } from 'yaml'
import { messageOf } from '../lib/errors.ts'
import { ApiError } from '../store/errors.ts'
import { parseProtobuf, protobufType } from './protobuf.ts'

/** Deeper than any manifest; a body beyond it is an attack on the parser's stack. */
const maxDepth = 100

/** Longest YAML: its parser takes a thousand times as long as that of JSON, and nothing else runs meanwhile. */
const maxYamlLength = 32 * 1024
const maxFlowDepth = 500

/** Times an alias may multiply: a few lines could otherwise become gigabytes. */
const maxAliasCount = 10

/** Kubernetes' server-side apply. */
export const applyType = 'application/apply-patch+yaml'

function tooDeep(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return false
  return depth > maxDepth || Object.values(value).some((item) => tooDeep(item, depth + 1))
}

function decode(raw: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(raw)
  } catch (error) {
    throw new ApiError('BadRequest', 'the body is not valid UTF-8', {}, { cause: error })
  }
}

/** The type of a body without its parameters; JSON where it is not said. */
export function mediaType(contentType = 'application/json'): string {
  return contentType.split(';')[0]?.trim().toLowerCase() ?? ''
}

/** A JSON or YAML body as a value. @throws ApiError BadRequest with the place, UnsupportedMediaType */
export function parseBody(raw: Buffer, contentType: string | undefined, encoding = 'identity'): unknown {
  if (raw.length === 0) return undefined
  if (encoding !== 'identity')
    throw new ApiError('UnsupportedMediaType', `the body is encoded with ${encoding}; send it as it is`)
  const type = mediaType(contentType)
  if (type === protobufType) return parseProtobuf(raw)
  const text = decode(raw)
  const value = isYaml(type, text) ? parseYaml(text) : parseJson(text, type)
  if (tooDeep(value)) throw new ApiError('BadRequest', `the body is nested more than ${maxDepth} deep`)
  return value
}

/** What is applied is mostly JSON, which is YAML, too. */
const isYaml = (type: string, text: string) =>
  type === 'application/yaml' || (type === applyType && !/^\s*\{/.test(text))

function parseJson(text: string, type: string): unknown {
  if (type !== 'application/json' && type !== applyType && !type.endsWith('+json')) {
    throw new ApiError(
      'UnsupportedMediaType',
      `the body of the request was in an unknown format: ${type}; use application/json or application/yaml`,
    )
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ApiError('BadRequest', `the body is not JSON: ${messageOf(error)}`, {}, { cause: error })
  }
}

/** Brackets that are open at once, those in quotes counted, too: good enough to spare the parser its stack. */
function flowDepth(text: string): number {
  let depth = 0
  let deepest = 0
  for (const [bracket] of text.matchAll(/[[\]{}]/g)) {
    depth += bracket === '[' || bracket === '{' ? 1 : -1
    if (depth > deepest) deepest = depth
  }
  return deepest
}

function parseYaml(text: string): unknown {
  if (text.length > maxYamlLength) {
    const limit = `${maxYamlLength} characters`
    throw new ApiError('RequestEntityTooLarge', `YAML may have at most ${limit} here: send JSON instead`)
  }
  if (flowDepth(text) > maxFlowDepth) throw new ApiError('BadRequest', 'the body is nested too deep')
  const lines = new LineCounter()
  // The parser compares each name with each other, which takes minutes for a large map; this is done below.
  const document = parseDocument(text, { uniqueKeys: false, lineCounter: lines })
  const [error] = document.errors
  if (error) throw new ApiError('BadRequest', `the body is not YAML: ${error.message.split('\n')[0]}`)
  visit(document, { Map: (_, map) => refuseTwice(map, lines) })
  try {
    return document.toJS({ maxAliasCount })
  } catch (cause) {
    throw new ApiError('BadRequest', `the body is not YAML: ${messageOf(cause)}`, {}, { cause })
  }
}

function refuseTwice(map: YAMLMap, lines: LineCounter): void {
  const names = new Set<unknown>()
  for (const { key } of map.items) {
    if (!isScalar(key)) continue
    const name = String(key.value)
    if (names.has(name)) {
      const { line, col } = lines.linePos(key.range?.[0] ?? 0)
      const where = `at line ${line}, column ${col}`
      throw new ApiError('BadRequest', `the body is not YAML: ${JSON.stringify(name)} stands twice ${where}`)
    }
    names.add(name)
  }
}

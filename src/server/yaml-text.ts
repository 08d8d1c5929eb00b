import type { Readable } from 'node:stream'
import { isRecord } from '../resources/prune.ts'
import { inPieces } from './list-text.ts'

/*
 * JSON values as YAML that parsers of 1.1 (Go's, PyYAML) and of 1.2 read the same. Written here because the writer of the
 * library `yaml` makes less than 1 MB/s, and a long list would hold up everybody else for as long.
 */

/** Strings that stand for themselves everywhere: no number, no time, nothing that ends a text or begins another thing. */
const plain = /^(?:[A-Za-z/][\w./@=+,()-]*(?:[ :][\w./@=+,()-]+)*|[1-9]\d{0,8}[KMGT]i)$/
/** Words that YAML 1.1 takes for a truth value or for nothing. */
const reserved = /^(?:y|yes|n|no|true|false|on|off|null)$/i
/** What is escaped in quotes besides what JSON escapes: line breaks of YAML 1.1, what is not printable. */
const unprintable = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g
/** What no lines that stand as they are may have in them: the same, and all control characters but these two. */
const unquotable = /[^\P{Cc}\t\n]|[\u2028\u2029\ufeff\ufffe\uffff]/u
/** Longer keys need a `?` before them (YAML 1.2 section 7.4.2: 1024 characters). */
const maxKey = 1_000

function quoted(text: string): string {
  const code = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
  return JSON.stringify(text.toWellFormed()).replace(unprintable, code)
}

function textOf(text: string): string {
  return plain.test(text) && (text.length > 5 || !reserved.test(text)) ? text : quoted(text)
}

/** Whether it is written over several lines of its own. */
const isFull = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Object.values(value).some((one) => one !== undefined)

function areLines(text: string): boolean {
  return text.includes('\n') && /^\S/.test(text) && text.isWellFormed() && !unquotable.test(text)
}

function leaf(value: unknown, pad: string): string {
  if (typeof value === 'string') return areLines(value) ? lines(value, pad) : textOf(value)
  const text = JSON.stringify(value) ?? 'null'
  // A number with an exponent is one in YAML 1.1 only with a point.
  return typeof value === 'number' ? text.replace(/^(-?\d+)e/, '$1.0e') : text
}

/** Several lines after a `|` (YAML 1.2 section 8.1.2), which says what becomes of the line breaks at the end. */
function lines(text: string, pad: string): string {
  const ends = text.endsWith('\n')
  const head = ends ? (text.endsWith('\n\n') ? '|+' : '|') : '|-'
  const all = (ends ? text.slice(0, -1) : text).split('\n')
  return [head, ...all.map((line) => (line === '' ? '' : `${pad}  ${line}`))].join('\n')
}

/** The members of a map that has any, or the elements of a list, each line after `pad`. */
function nodes(value: object, pad: string): string {
  let text = ''
  if (Array.isArray(value)) for (const one of value) text += element(one, pad)
  else for (const [name, one] of membersOf(value)) text += member(name, one, pad)
  return text
}

/** In the order of their names, as Kubernetes writes them. */
function* membersOf(value: object): Generator<[string, unknown]> {
  const map = value as Readonly<Record<string, unknown>>
  for (const name of Object.keys(map).sort()) if (map[name] !== undefined) yield [name, map[name]]
}

function key(name: string, pad: string): string {
  const text = textOf(name)
  return text.length > maxKey ? `${pad}? ${text}\n${pad}:` : `${pad}${text}:`
}

function member(name: string, value: unknown, pad: string): string {
  const head = key(name, pad)
  if (!isFull(value)) return `${head} ${leaf(value, pad)}\n`
  return `${head}\n${nodes(value, Array.isArray(value) ? pad : `${pad}  `)}`
}

function element(value: unknown, pad: string): string {
  if (!isFull(value)) return `${pad}- ${leaf(value, pad)}\n`
  return `${pad}- ${nodes(value, `${pad}  `).slice(pad.length + 2)}`
}

/** A document member by member, and the lists in it element by element. */
function* parts(value: unknown): Generator<string> {
  if (!isRecord(value) || !isFull(value)) {
    yield isFull(value) ? nodes(value, '') : `${leaf(value, '')}\n`
    return
  }
  for (const [name, one] of membersOf(value)) {
    if (!Array.isArray(one) || one.length === 0) yield member(name, one, '')
    else {
      yield `${key(name, '')}\n`
      for (const item of one) yield element(item, '')
    }
  }
}

/** A JSON value as YAML. */
export function yamlText(value: unknown): string {
  return [...parts(value)].join('')
}

/** The same: as a string, or as a stream where it is long. */
export function yamlBody(value: unknown): string | Readable {
  return inPieces(parts(value))
}

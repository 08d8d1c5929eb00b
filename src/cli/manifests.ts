import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { Document, LineCounter } from 'yaml'
import { errnoOf, inField, messageOf, PlasmaError } from '../lib/errors.ts'
import { UsageError } from './failure.ts'
import type { Io } from './io.ts'
import { type ClientKind, kindOfManifest } from './kinds.ts'
import { isObject, type JsonObject } from './merge.ts'
import { excerpt, lineOf } from './places.ts'

/** Bytes a single manifest file may have. */
export const maxManifestBytes = 10_000_000

export interface Manifest extends JsonObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: JsonObject & {
    readonly name: string
    readonly namespace?: string
    readonly annotations?: JsonObject
  }
}

export interface Source {
  /** `file:line` for people. */
  readonly at: string
  readonly manifest: Manifest
  /** `file:line` of a field such as `spec.disks[0].name`, or of what is nearest above it. */
  readonly placeOf: (field: string) => string
}

const tooLarge = (name: string) =>
  new PlasmaError(
    'TooLarge',
    `${name} has more than ${maxManifestBytes / 1e6} MB, the most a manifest may have`,
    {
      hint: 'split it into several files and apply their folder; is it a manifest at all?',
    },
  )

async function readAll(stream: Readable, name: string): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of stream as AsyncIterable<Buffer | string>) {
    const bytes = Buffer.from(chunk)
    size += bytes.length
    if (size > maxManifestBytes) throw tooLarge(name)
    chunks.push(bytes)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
  } catch {
    throw new PlasmaError('BadManifest', `${name} is no text in UTF-8`, {
      hint: 'is it a manifest at all? manifests are YAML or JSON',
    })
  }
}

async function statOf(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    const why = errnoOf(error) === 'ENOENT' ? 'does not exist' : `cannot be read: ${messageOf(error)}`
    throw new PlasmaError('Unreadable', `the path "${path}" ${why}`, { hint: 'check what follows -f' })
  }
}

const isManifestFile = (name: string) => /\.(ya?ml|json)$/.test(name)

/** Files of a folder in name order; those of folders below only when `recursive`. */
async function filesIn(folder: string, recursive: boolean): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true })
  entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  const found: string[] = []
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) found.push(...(recursive ? await filesIn(path, true) : []))
    else if (isManifestFile(entry.name)) found.push(path)
  }
  return found
}

function toManifest(value: unknown, at: string, placeOf: Source['placeOf']): Manifest {
  const problem = (
    field: string,
    text: string,
    hint = "see 'plasmavmc explain vm' for what a manifest has",
  ) => new PlasmaError('BadManifest', `${field === '' ? at : placeOf(field)}: ${text}`, { hint })
  if (!isObject(value)) {
    const example = 'apiVersion: plasmavmc.io/v1alpha1, kind: VirtualMachine, metadata: {name: web}'
    throw problem('', 'this document is no object', `a manifest begins like this: ${example}`)
  }
  const { apiVersion, kind, metadata } = value
  const name = isObject(metadata) ? metadata['name'] : undefined
  const texts = { apiVersion, kind, 'metadata.name': name }
  for (const [field, text] of Object.entries(texts)) {
    if (text === undefined || text === null || text === '') throw problem(field, `${field} is not set`)
    if (typeof text !== 'string') {
      const shown = JSON.stringify(text)
      throw problem(field, `${field} must be a string, not ${shown}`, `put it in quotes: "${shown}"`)
    }
  }
  return value as Manifest
}

interface Text {
  readonly name: string
  readonly text: string
  readonly counter: LineCounter
}

function readDocument(document: Document.Parsed, { name, text, counter }: Text): readonly Source[] {
  const [error] = document.errors
  if (error) {
    const { line, col } = counter.linePos(error.pos[0])
    const why = error.message.split(/ at line \d+/)[0]
    throw new PlasmaError('BadYaml', `${name}:${line}:${col}: ${why}\n${excerpt(text, line, col)}`, {
      hint: 'correct the YAML there; nothing was changed',
    })
  }
  const first = counter.linePos(document.contents?.range[0] ?? document.range[0]).line
  const at = `${name}:${first}`
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 100 })
  } catch (problem) {
    throw new PlasmaError('BadYaml', `${at}: ${messageOf(problem)}`)
  }
  if (value === null || value === undefined) return []
  const items = isObject(value) && value['kind'] === 'List' ? value['items'] : undefined
  const all = Array.isArray(items) ? items : [value]
  return all.map((item, index) => {
    const prefix = Array.isArray(items) ? ['items', index] : []
    const placeOf = (field: string) => `${name}:${lineOf(document, counter, prefix, field) ?? first}`
    return { at: placeOf(''), manifest: toManifest(item, at, placeOf), placeOf }
  })
}

/**
 * The manifests of a YAML or JSON text, several documents and `List`s included.
 * @throws PlasmaError `BadYaml`, `BadManifest` with file, line and column
 */
export async function parseManifests(text: string, name: string): Promise<readonly Source[]> {
  const { LineCounter, parseAllDocuments } = await import('yaml')
  const counter = new LineCounter()
  const documents = parseAllDocuments(text, { lineCounter: counter, prettyErrors: false })
  if (!Array.isArray(documents)) return []
  return documents.flatMap((document) => readDocument(document as Document.Parsed, { name, text, counter }))
}

/** All manifests that `-f` names: files, folders and `-` for standard input. Everything is read before any is used. */
export async function readManifests(
  paths: readonly string[],
  recursive: boolean,
  io: Pick<Io, 'stdin'>,
): Promise<readonly Source[]> {
  const sources: Source[] = []
  for (const path of paths) {
    if (/^https?:\/\//.test(path)) {
      throw new UsageError(
        `${path}: manifests are read from files`,
        `curl -fsS ${path} | plasmavmc apply -f -`,
      )
    }
    if (path === '-') {
      sources.push(...(await parseManifests(await readAll(io.stdin, 'standard input'), 'standard input')))
      continue
    }
    const files = (await statOf(path)).isDirectory() ? await filesIn(path, recursive) : [path]
    for (const file of files) {
      if ((await statOf(file)).size > maxManifestBytes) throw tooLarge(file)
      sources.push(...(await parseManifests(await readAll(createReadStream(file), file), file)))
    }
  }
  if (sources.length > 0) return sources
  throw new PlasmaError(
    'NoManifest',
    `no manifests in ${paths.map((path) => (path === '-' ? 'standard input' : path)).join(', ')}`,
    {
      hint: paths.every((path) => path === '-')
        ? 'what is piped in was empty, or only comments'
        : 'a file must not be empty; in a folder, files end in .yaml, .yml or .json, and -R looks into folders below',
    },
  )
}

/** The kind of a manifest. @throws PlasmaError `NoKind` with its place */
export function kindOfSource({ manifest, placeOf }: Source): ClientKind {
  try {
    return kindOfManifest(manifest.apiVersion, manifest.kind)
  } catch (error) {
    throw inField(placeOf('kind'), error)
  }
}

import { isDeepStrictEqual } from 'node:util'
import type { Command } from 'commander'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { applyOnServer, checkServerSide, type ServerSideOptions } from './apply-server.ts'
import { type Client, connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { quote } from './connection.ts'
import { isServerError, UsageError } from './failure.ts'
import type { Invocation, Io } from './io.ts'
import { kindOfManifest, nameOf, pathOf } from './kinds.ts'
import { renderManifestError } from './manifest-error.ts'
import { kindOfSource, type Manifest, readManifests, type Source } from './manifests.ts'
import { type JsonObject, threeWayMergePatch } from './merge.ts'
import { formatOf, oneOf } from './options.ts'
import { renderObject, withoutAccount } from './output.ts'
import { type Applied, type ApplySettings, dryRunNote, lastApplied, prune, type Stored } from './prune.ts'

interface Options extends ServerSideOptions {
  readonly filename?: readonly string[]
  readonly recursive?: boolean
  readonly validate?: string | boolean
  readonly selector?: string
  readonly output?: string
}

/** The manifest with itself, as JSON, in the last-applied annotation. Status and that annotation are no part of it. */
export function withLastApplied(manifest: Manifest): Manifest {
  const { status: _status, ...rest } = manifest
  const { [lastApplied]: _previous, ...annotations } = manifest.metadata.annotations ?? {}
  const original = { ...rest, metadata: { ...manifest.metadata, annotations } }
  const text = `${JSON.stringify(original)}\n`
  return {
    ...rest,
    metadata: { ...manifest.metadata, annotations: { ...annotations, [lastApplied]: text } },
  } as Manifest
}

function originalOf(current: Stored): JsonObject | undefined {
  const text = current.metadata.annotations?.[lastApplied]
  if (typeof text !== 'string') return undefined
  try {
    return JSON.parse(text) as JsonObject
  } catch (error) {
    const { name } = current.metadata
    throw new PlasmaError(
      'BadAnnotation',
      `annotation ${lastApplied} of ${name} is no JSON: ${messageOf(error)}`,
      {
        hint: 'take that annotation off the object, then apply again',
      },
    )
  }
}

async function existing(client: Client, path: string): Promise<Stored | undefined> {
  try {
    return await client.json<Stored>('GET', path)
  } catch (error) {
    if (isServerError(error, 'NotFound')) return undefined
    throw error
  }
}

function queryOf(settings: ApplySettings): Readonly<Record<string, string | undefined>> {
  return {
    fieldManager: 'plasmavmc',
    fieldValidation: settings.fieldValidation,
    dryRun: settings.dryRun === 'server' ? 'All' : undefined,
  }
}

/** Whether an answer says the same as what was there. Its status may be another by now, which is nobody's doing here. */
function same(before: Stored, after: Stored): boolean {
  return isDeepStrictEqual(said(before), said(after))
}

/** What its authors say of an object. */
function said({ status: _s, metadata, ...rest }: Stored): unknown {
  const {
    resourceVersion: _r,
    managedFields: _m,
    ...meta
  } = metadata as Stored['metadata'] & {
    readonly managedFields?: unknown
  }
  return { ...rest, metadata: meta }
}

/** Makes one manifest so: creates it, or sends the three-way merge against what is there. @throws ServerError */
export async function applyOne(
  client: Client,
  manifest: Manifest,
  settings: ApplySettings,
): Promise<Applied> {
  const kind = kindOfManifest(manifest.apiVersion, manifest.kind)
  const namespace = manifest.metadata.namespace ?? settings.namespace
  const path = pathOf(kind, namespace, manifest.metadata.name)
  const metadata = kind.namespaced ? { ...manifest.metadata, namespace } : manifest.metadata
  const modified = withLastApplied({ ...manifest, metadata } as Manifest)
  const current = await existing(client, path)
  const query = queryOf(settings)
  if (current === undefined) {
    if (settings.dryRun === 'client') return { verb: 'created', kind, object: modified as Stored }
    const object = await client.json<Stored>('POST', pathOf(kind, namespace), { query, body: modified })
    return { verb: 'created', kind, object }
  }
  const patch = threeWayMergePatch(originalOf(current), modified, current)
  if (Object.keys(patch).length === 0) return { verb: 'unchanged', kind, object: current }
  if (settings.dryRun === 'client') return { verb: 'configured', kind, object: modified as Stored }
  const contentType = 'application/merge-patch+json'
  const object = await client.json<Stored>('PATCH', path, { query, contentType, body: patch })
  return { verb: same(current, object) ? 'unchanged' : 'configured', kind, object }
}

function checkNamespace(source: Source, wanted: string | undefined): void {
  const { namespace } = source.manifest.metadata
  if (wanted === undefined || namespace === undefined || wanted === namespace) return
  throw new UsageError(
    `${source.at}: the manifest's namespace "${namespace}" is not the "${wanted}" of --namespace`,
    'leave --namespace out, or take the namespace out of the manifest',
  )
}

function settingsOf(options: Invocation<Options>['options'], io: Io): ApplySettings {
  const validate = String(options.validate ?? 'strict')
    .replace(/^true$/, 'strict')
    .replace(/^false$/, 'ignore')
  const level = oneOf('--validate', validate, ['strict', 'warn', 'ignore'])
  const dryRun = options.dryRun === true ? 'client' : String(options.dryRun ?? 'none')
  return {
    dryRun: oneOf('--dry-run', dryRun, ['none', 'client', 'server']),
    fieldValidation: ({ strict: 'Strict', warn: 'Warn', ignore: 'Ignore' } as const)[level],
    namespace: namespaceOf(options, io),
  }
}

/** What is applied to an object on its way out goes with it, and whoever applied it should know. */
function warnOfDeletion({ kind, object }: Applied, io: Io): void {
  const { name } = object.metadata
  io.stderr.write(
    `Warning: ${nameOf(kind, name)} is being deleted, and what was applied goes with it; to have it again: plasmavmc wait ${kind.shortNames[0] ?? kind.plural} ${name} --for=delete, then apply\n`,
  )
}

async function run({ args, options }: Invocation<Options>, io: Io): Promise<number> {
  if (args.length > 0) {
    const files = [...(options.filename ?? []), ...args].map((file) => ` -f ${quote(file)}`).join('')
    throw new UsageError(`apply takes no operand such as "${args[0]}"`, `name files with -f: apply${files}`)
  }
  if (!options.filename?.length) throw new UsageError('nothing to apply', 'name a manifest: apply -f vm.yaml')
  if (options.prune && !options.selector)
    throw new UsageError('--prune needs -l', 'say which objects it may delete')
  if (options.selector && !options.prune) throw new UsageError('-l goes with --prune only')
  checkServerSide(options)
  const format = formatOf(options.output, ['json', 'yaml', 'name'])
  const settings = settingsOf(options, io)
  const sources = await readManifests(options.filename, options.recursive === true, io)
  for (const source of sources) {
    checkNamespace(source, options.namespace)
    kindOfSource(source)
  }
  const client = connect(options, io)
  const applied: Applied[] = []
  let failures = 0
  for (const source of sources) {
    const { manifest } = source
    try {
      const result = options.serverSide
        ? await applyOnServer(client, manifest, settings, options)
        : await applyOne(client, manifest, settings)
      applied.push(result)
      if (result.object.metadata.deletionTimestamp) warnOfDeletion(result, io)
      const name = nameOf(result.kind, manifest.metadata.name)
      if (format === undefined) io.stdout.write(`${name} ${result.verb}${dryRunNote(settings.dryRun)}\n`)
      else if (format === 'name') io.stdout.write(`${name}\n`)
    } catch (error) {
      if (!(error instanceof PlasmaError) || error.code === 'NoServer') throw error
      failures++
      io.stderr.write(await renderManifestError(error, source, format === 'json'))
    }
  }
  if (applied.length > 0 && (format === 'json' || format === 'yaml')) {
    const objects = applied.map((a) => a.object)
    const list = { apiVersion: 'v1', kind: 'List', metadata: {}, items: objects }
    io.stdout.write(await renderObject(withoutAccount(objects.length === 1 ? objects[0] : list), format))
  }
  // After a failure nothing is pruned: what could not be applied would look like something nobody declares.
  if (options.selector && failures === 0) {
    await prune(client, applied, options.selector, settings, (line) => format ?? io.stdout.write(line))
  }
  client.close()
  return failures > 0 ? 1 : 0
}

export const command: CommandModule<Options> = {
  define: (c: Command) =>
    void c
      // Refused in run, which knows what was meant.
      .allowExcessArguments()
      .option('-f, --filename <path...>', 'files, folders, or - for standard input')
      .option('-R, --recursive', 'look into the folders below, too')
      .option('--dry-run [where]', 'none, client or server: say what would happen')
      .option('--validate [how]', 'unknown fields: strict (refuse), warn, ignore')
      .option('--server-side', 'the server merges, and keeps account of who owns which field')
      .option('--force-conflicts', 'with --server-side: take what another manager owns')
      .option('--field-manager <name>', 'who applies, for --server-side; plasmavmc unless told')
      .option('--prune', 'delete objects matching -l that were applied before and are not in the files now')
      .option('-l, --selector <labels>', 'labels of what --prune may delete')
      .option('-o, --output <format>', 'json, yaml or name'),
  examples: [
    'apply -f vm.yaml',
    'apply -f machines/ -R',
    'apply -f vm.yaml --dry-run=server',
    'apply -f vm.yaml --server-side',
    'apply -f machines/ --prune -l app=web',
    'explain vm.spec',
  ],
  run,
}

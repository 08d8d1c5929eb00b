import { type Client, connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { describeHost, evidenceText } from './describe-host.ts'
import { describeMachine, pairLines } from './describe-vm.ts'
import { bySeen, type EventView, eventCells } from './events.ts'
import { isServerError, UsageError } from './failure.ts'
import type { Io } from './io.ts'
import { apiVersionOf, kindOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { age, renderObject, renderTable, withoutAccount } from './output.ts'
import { type ListView, type ObjectView, targetsOf } from './targets.ts'

const indent = (text: string, by: string) => text.replace(/^(?=.)/gm, by)

function section(title: string, text: string): string {
  return text.trim() === '' ? '' : `${title}:\n${indent(text, '  ')}`
}

function conditionsOf(object: ObjectView, io: Io): string {
  const conditions = object.status?.conditions ?? []
  if (conditions.length === 0) return ''
  const rows = conditions.map((c) => [
    c.type,
    c.status,
    c.lastTransitionTime ? age(io.clock.now() - Date.parse(c.lastTransitionTime)) : undefined,
    c.reason,
    c.message,
  ])
  const columns = ['Condition', 'Status', 'Since', 'Reason', 'Message']
  const style = { out: io.stdout, env: io.env, wrap: true, indent: 2 }
  return `Conditions:\n${renderTable({ columns, rows }, style).text}`
}

async function eventsOf(client: Client, object: ObjectView, io: Io): Promise<string> {
  const { name, namespace = 'default', uid } = object.metadata
  const query = { fieldSelector: `involvedObject.name=${name}` }
  const list = await client.json<ListView<EventView>>('GET', pathOf(kindOf('events'), namespace), { query })
  const mine = list.items.filter((e) => uid === undefined || e.involvedObject?.uid === uid)
  if (mine.length === 0) return 'Events:         <none>\n'
  const rows = mine.toSorted(bySeen).map((e) => eventCells(e, io.clock.now()).filter((_, i) => i !== 3))
  const columns = ['Last Seen', 'Type', 'Reason', 'Message']
  const style = { out: io.stdout, env: io.env, wrap: true, indent: 2 }
  return `Events:\n${renderTable({ columns, rows }, style).text}`
}

function headOf(object: ObjectView, io: Io): string {
  const { name, namespace, uid, creationTimestamp, deletionTimestamp, finalizers, labels } = object.metadata
  const pairs = Object.entries(labels ?? {}).map(([k, v]) => `${k}=${v}`)
  const ago = (at: string | undefined) => at && `${at} (${age(io.clock.now() - Date.parse(at))} ago)`
  return pairLines(
    [
      ['Name', name],
      ['Namespace', namespace],
      ['Kind', `${object.kind} (${object.apiVersion})`],
      ['UID', uid],
      ['Labels', pairs.join(', ') || '<none>'],
      ['Created', ago(creationTimestamp)],
      ['Deletion asked', ago(deletionTimestamp)],
      [deletionTimestamp ? 'Held by' : 'Finalizers', finalizers?.join(', ')],
    ],
    io,
  )
}

/** Any other object: its spec and status as they are. */
async function describeOther(object: ObjectView): Promise<string> {
  const { conditions: _shown, orphans: _manifests, ...status } = object.status ?? {}
  const { apiVersion: _a, kind: _k, metadata: _m, spec, status: _s, ...rest } = object
  const yaml = async (value: unknown) =>
    value === undefined || Object.keys(value as object).length === 0 ? '' : await renderObject(value, 'yaml')
  return [section('Spec', await yaml(spec)), await yaml(rest), section('Status', await yaml(status))].join('')
}

async function bodyOf(client: Client, object: ObjectView, io: Io): Promise<string> {
  if (object.kind === 'Host') return describeHost(client, object, io)
  if (object.kind !== 'VirtualMachine') return describeOther(object)
  return describeMachine(object, io, await movedBy(client, object, io))
}

/** The evidence by which a machine was last taken from a lost host. */
async function movedBy(client: Client, { status }: ObjectView, io: Io): Promise<string | undefined> {
  const name = status?.['evidence']
  if (typeof name !== 'string') return undefined
  try {
    const path = pathOf(kindOf('fenceevidences'), undefined, name)
    return evidenceText(await client.json<ObjectView>('GET', path), io)
  } catch (error) {
    if (isServerError(error, 'NotFound')) return `${name}, which is no more`
    throw error
  }
}

/** All of one object for people: what it is, how it stands, conditions, events. */
export async function describeObject(client: Client, object: ObjectView, io: Io): Promise<string> {
  const body = await bodyOf(client, object, io)
  return [headOf(object, io), body, conditionsOf(object, io), await eventsOf(client, object, io)].join('')
}

export const command: CommandModule<{ readonly output?: string; readonly selector?: string }> = {
  define: (c) =>
    void c
      .argument('[type]')
      .argument('[name...]')
      .option('-l, --selector <labels>', 'objects with these labels')
      .option('-o, --output <format>', 'json or yaml: the object itself'),
  run: async ({ args, options }, io) => {
    const targets = targetsOf(args)
    if (targets.some(({ names }) => names.length > 0) && options.selector)
      throw new UsageError('give names or -l, not both')
    const format = formatOf(options.output, ['json', 'yaml'])
    const namespace = namespaceOf(options, io)
    const client = connect(options, io)
    const query = { labelSelector: options.selector }
    const objects: ObjectView[] = []
    for (const { kind, names } of targets) {
      for (const name of names)
        objects.push(await client.json<ObjectView>('GET', pathOf(kind, namespace, name)))
      if (names.length > 0) continue
      const list = await client.json<ListView>('GET', pathOf(kind, namespace), { query })
      objects.push(...list.items.map((o) => ({ apiVersion: apiVersionOf(kind), kind: kind.kind, ...o })))
    }
    if (objects.length === 0) io.stderr.write('No resources found.\n')
    for (const [i, object] of objects.entries()) {
      if (i > 0) io.stdout.write(format === 'yaml' ? '---\n' : '\n')
      if (format === 'json' || format === 'yaml')
        io.stdout.write(await renderObject(withoutAccount(object), format))
      else io.stdout.write(await describeObject(client, object, io))
    }
    client.close()
    return 0
  },
}

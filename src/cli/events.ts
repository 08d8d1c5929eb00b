import { connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { follow, type Selection } from './follow.ts'
import type { Io } from './io.ts'
import { kindOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { age, renderObject, renderTable } from './output.ts'
import type { ListView, ObjectView } from './targets.ts'

/** An Event (v1) as clients read it. */
export interface EventView extends ObjectView {
  readonly type?: string
  readonly message?: string
  readonly count?: number
  readonly firstTimestamp?: string
  readonly lastTimestamp?: string
  readonly eventTime?: string | null
  readonly involvedObject?: { readonly kind?: string; readonly name?: string; readonly uid?: string }
}

/** When an event was last seen, wall milliseconds; 0 where it does not say. */
export function seenAt(event: EventView & { readonly reason?: string }): number {
  const text =
    event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp ?? event.metadata.creationTimestamp
  return text ? Date.parse(text) || 0 : 0
}

/** By when they were last seen: by the second, as most say no more, then by the order in which they were written. */
export function bySeen(a: EventView, b: EventView): number {
  const [one, other] = [finest(a), finest(b)]
  const seconds = Math.floor(one.at / 1000) - Math.floor(other.at / 1000)
  if (seconds !== 0) return seconds
  // A time without a fraction says nothing about its second.
  if (one.fine && other.fine && one.at !== other.at) return one.at - other.at
  return Number(a.metadata.resourceVersion ?? 0) - Number(b.metadata.resourceVersion ?? 0) || 0
}

/** The time an event was last seen, with its fraction of the second where one of its times has one. */
function finest(event: EventView): { readonly at: number; readonly fine: boolean } {
  const at = seenAt(event)
  const times = [event.eventTime, event.lastTimestamp, event.firstTimestamp].flatMap((text) =>
    text && /\.\d/.test(text) ? [Date.parse(text)] : [],
  )
  const fine = times.find((time) => Math.floor(time / 1000) === Math.floor(at / 1000))
  return { at: fine ?? at, fine: fine !== undefined }
}

/** Cells of an event: how long ago, type, reason, object, message. */
export function eventCells(event: EventView & { readonly reason?: string }, now: number): readonly unknown[] {
  const { involvedObject: about, count = 1 } = event
  const at = seenAt(event)
  return [
    at === 0 ? '<unknown>' : age(now - at),
    event.type,
    event.reason,
    `${about?.kind?.toLowerCase() ?? ''}/${about?.name ?? ''}`,
    count > 1 ? `${event.message ?? ''} (${count} times)` : event.message,
  ]
}

const columns = ['Last Seen', 'Type', 'Reason', 'Object', 'Message']

interface Options {
  readonly watch?: boolean
  readonly allNamespaces?: boolean
  readonly output?: string
}

async function run({ options }: { options: Options & { namespace?: string } }, io: Io): Promise<number> {
  const format = formatOf(options.output, ['json', 'yaml'])
  const kind = kindOf('events')
  const where = options.allNamespaces ? {} : { namespace: namespaceOf(options, io) }
  const selection: Selection = { kind, names: [], query: {}, ...where }
  const client = connect(options, io)
  const list = await client.json<ListView<EventView>>('GET', pathOf(kind, selection.namespace))
  const events = [...list.items].sort(bySeen)
  let widths: readonly number[] = []
  const print = async (some: readonly EventView[], headers: boolean) => {
    const rows = some.map((e) => eventCells(e, io.clock.now()))
    const rendered = renderTable(
      { columns, rows },
      { out: io.stdout, env: io.env, headers, widths, wrap: true },
    )
    widths = rendered.widths
    io.stdout.write(rendered.text)
  }
  if (format !== undefined && !options.watch) {
    const all = { apiVersion: 'v1', kind: 'List', metadata: {}, items: events }
    io.stdout.write(await renderObject(all, format === 'yaml' ? 'yaml' : 'json'))
  } else if (format === undefined) {
    if (events.length === 0 && !options.watch) io.stderr.write('No resources found.\n')
    else await print(events, true)
  }
  if (options.watch) {
    const version = list.metadata?.resourceVersion
    for await (const { type, object } of follow<EventView>(
      client,
      selection,
      version,
      'application/json',
      io,
    )) {
      if (type === 'DELETED') continue
      if (format === undefined) await print([object], false)
      else io.stdout.write(await renderObject(object, format === 'yaml' ? 'yaml' : 'json'))
    }
  }
  client.close()
  return 0
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .option('-w, --watch', 'go on and print what happens')
      .option('-A, --all-namespaces', 'across all namespaces')
      .option('-o, --output <format>', 'json or yaml'),
  run,
}

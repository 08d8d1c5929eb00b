import { columnsOf, cutterOf, fitted } from './fit.ts'
import type { Output } from './io.ts'

const codes = { red: 31, green: 32, yellow: 33, blue: 34, grey: 90, bold: 1 } as const
export type Colour = keyof typeof codes

/** Paints text for terminals; leaves it alone elsewhere and where NO_COLOR is set (no-color.org). */
export function painter(out: Output, env: Readonly<Record<string, string | undefined>>) {
  const on = out.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
  return (colour: Colour, text: string) => (on ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text)
}

const good = new Set(['Running', 'Ready', 'True', 'Normal'])
const bad = new Set(['Failed', 'CrashLoopBackOff', 'Unresponsive', 'Warning', 'NotReady', 'Lost'])
const busy = new Set([
  'Pending',
  'Provisioning',
  'Starting',
  'Stopping',
  'Terminating',
  'Migrating',
  'Unknown',
])

/** The colour a status has, if any; of several words with commas between, the first one's, and no good one with something besides. */
export function colourOf(text: string): Colour | undefined {
  const [word = '', ...more] = text.split(',')
  if (good.has(word) && more.length > 0) return 'yellow'
  if (good.has(word)) return 'green'
  if (bad.has(word)) return 'red'
  return busy.has(word) ? 'yellow' : undefined
}

/** A cell as one line of printable text: what a guest or a user wrote must not steer the terminal. */
export function plain(value: unknown): string {
  if (value === undefined || value === null || value === '') return '<none>'
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ')
}

export interface Table {
  readonly columns: readonly string[]
  readonly rows: readonly (readonly unknown[])[]
}

/** Columns whose words have colours. */
const painted = new Set(['STATUS', 'STATE', 'TYPE'])

/** Splits text into lines of at most `width`, between words where there are any. */
export function wrapText(text: string, width: number): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ').flatMap((w) => w.match(new RegExp(`.{1,${width}}`, 'gu')) ?? [''])) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}

export interface TableOptions {
  readonly out: Output
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly headers?: boolean
  /** What an earlier call returned keeps the columns of a watch aligned. */
  readonly widths?: readonly number[]
  /** On a terminal, text of the last column goes on in the next line instead of being cut. */
  readonly wrap?: boolean
  /** Spaces before each line. */
  readonly indent?: number
}

/**
 * Lines of a table: aligned, three spaces between columns as kubectl has them, nothing padded at the end. On a terminal
 * that is too narrow, fewer, and then texts and names are cut; numbers and states never are.
 */
export function renderTable(
  table: Table,
  options: TableOptions,
): { readonly text: string; readonly widths: readonly number[] } {
  const { out, indent = 0 } = options
  const paint = painter(out, options.env ?? {})
  const head = table.columns.map((name) => name.toUpperCase())
  const body = table.rows.map((row) => row.map(plain))
  const natural = head.map((_, i) =>
    Math.max(options.widths?.[i] ?? 0, ...[head, ...body].map((row) => row[i]?.length ?? 0)),
  )
  const room = out.isTTY && out.columns ? out.columns - indent : Number.POSITIVE_INFINITY
  const last = head.length - 1
  const wraps = options.wrap === true
  const { widths, gap } = fitted(columnsOf(head, body, natural, wraps), room)
  const cuts = head.map((name, i) => cutterOf(name, body, i, widths[i] ?? 0))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => {
        const text = cuts[i]?.(cell) ?? cell
        const colour = painted.has(head[i] ?? '') ? colourOf(cell) : undefined
        const shown = colour === undefined ? text : paint(colour, text)
        return i === last ? shown : shown + ' '.repeat((widths[i] ?? 0) - text.length)
      })
      .join(' '.repeat(gap))
  const rowsOf = (cells: readonly string[]) => {
    const texts = wraps ? wrapText(cells[last] ?? '', Math.max(1, widths[last] ?? 1)) : [cells[last] ?? '']
    return texts.map((text, i) => [
      ...(i === 0 ? cells.slice(0, last) : head.slice(0, last).map(() => '')),
      text,
    ])
  }
  const all = [...(options.headers === false ? [] : [head]), ...body].flatMap(rowsOf)
  const pad = ' '.repeat(indent)
  return { text: all.map((cells) => `${(pad + line(cells)).trimEnd()}\n`).join(''), widths: natural }
}

/** A span of milliseconds as kubectl writes ages: 45s, 3m20s, 5h7m, 12d. */
export function age(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000))
  if (s < 120) return `${s}s`
  const m = Math.floor(s / 60)
  if (m < 10) return s % 60 ? `${m}m${s % 60}s` : `${m}m`
  if (m < 180) return `${m}m`
  const h = Math.floor(m / 60)
  if (h < 8) return m % 60 ? `${h}h${m % 60}m` : `${h}h`
  if (h < 48) return `${h}h`
  const d = Math.floor(h / 24)
  return d < 8 && h % 24 ? `${d}d${h % 24}h` : `${d}d`
}

export type Format = 'json' | 'yaml' | 'name' | 'wide' | undefined

/** An object, or a list of them, without `metadata.managedFields`: they are long, and seldom what is looked for. */
export function withoutAccount(object: unknown): unknown {
  if (typeof object !== 'object' || object === null) return object
  const { metadata, items } = object as { metadata?: { managedFields?: unknown }; items?: unknown[] }
  const { managedFields: _, ...kept } = metadata ?? {}
  const shown = { ...object, ...(metadata && { metadata: kept }) }
  return Array.isArray(items) ? { ...shown, items: items.map(withoutAccount) } : shown
}

/** Objects as JSON or YAML text, one document. YAML is loaded only when asked for. */
export async function renderObject(object: unknown, format: 'json' | 'yaml'): Promise<string> {
  if (format === 'json') return `${JSON.stringify(object, null, 2)}\n`
  const { stringify } = await import('yaml')
  return stringify(object, { lineWidth: 0 })
}

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

/** The colour a status word has, if any. */
export function colourOf(word: string): Colour | undefined {
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

/** Widths that fit all cells; the last column gives way first where a terminal has only `room` columns. */
export function widthsOf(rows: readonly (readonly string[])[], room = Number.POSITIVE_INFINITY): number[] {
  const count = Math.max(0, ...rows.map((row) => row.length))
  const widths = Array.from({ length: count }, (_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  const gaps = 3 * Math.max(0, count - 1)
  let excess = widths.reduce((a, b) => a + b, gaps) - room
  for (let i = count - 1; i > 0 && excess > 0; i--) {
    const least = rows[0]?.[i]?.length ?? 0
    const cut = Math.min(excess, Math.max(0, (widths[i] ?? 0) - least))
    widths[i] = (widths[i] ?? 0) - cut
    excess -= cut
  }
  return widths
}

function shorten(text: string, width: number): string {
  return text.length <= width ? text : width > 1 ? `${text.slice(0, width - 1)}…` : text.slice(0, width)
}

/**
 * Lines of a table: aligned, three spaces between columns as kubectl has them, nothing padded at the end.
 * @param widths of an earlier call keeps the columns of a watch aligned
 */
export function renderTable(
  table: Table,
  options: {
    readonly out: Output
    readonly env?: Readonly<Record<string, string | undefined>>
    readonly headers?: boolean
    readonly widths?: readonly number[]
  },
): { readonly text: string; readonly widths: readonly number[] } {
  const paint = painter(options.out, options.env ?? {})
  const head = table.columns.map((name) => name.toUpperCase())
  const body = table.rows.map((row) => row.map(plain))
  const own = widthsOf([head, ...body], options.out.isTTY ? options.out.columns : undefined)
  const widths = own.map((w, i) => (options.out.isTTY ? w : Math.max(w, options.widths?.[i] ?? 0)))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => {
        const text = shorten(cell, widths[i] ?? cell.length)
        const colour = colourOf(cell)
        const shown = colour === undefined ? text : paint(colour, text)
        return i === cells.length - 1 ? shown : shown + ' '.repeat((widths[i] ?? 0) - text.length)
      })
      .join('   ')
  const all = options.headers === false ? body : [head, ...body]
  return { text: all.map((cells) => `${line(cells).trimEnd()}\n`).join(''), widths }
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

/** Objects as JSON or YAML text, one document. YAML is loaded only when asked for. */
export async function renderObject(object: unknown, format: 'json' | 'yaml'): Promise<string> {
  if (format === 'json') return `${JSON.stringify(object, null, 2)}\n`
  const { stringify } = await import('yaml')
  return stringify(object, { lineWidth: 0 })
}

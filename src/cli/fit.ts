/** How a column of a table gives way where there is no room for all of them. */
interface Column {
  readonly width: number
  readonly sort: 'fixed' | 'key' | 'name' | 'text'
  /** It is never narrower. */
  readonly least: number
}

/** What a table is looked at for: numbers, times, states and what somebody copies out of it. */
const whole = new Set([
  ...[
    'STATUS',
    'STATE',
    'TYPE',
    'READY',
    'DISABLED',
    'ADOPTABLE',
    'RESTARTS',
    'CPUS',
    'MEMORY',
    'SIZE',
    'PID',
  ],
  ...['AGE', 'SINCE', 'LAST SEEN', 'LAST USED', 'EXPIRES', 'LAUNCHED', 'EPOCH', 'ID'],
])
/** What the other columns are about. */
const keys = new Set(['NAME', 'OBJECT', 'NAMESPACE', 'RESOURCES'])
/** Words for people, which say most at their beginning. */
const texts = new Set(['MESSAGE', 'WHY', 'FILE', 'LABELS', 'VERBS', 'FORWARDS', 'VALUE'])
/** A number, with its unit if it has one. */
const number = /^[\d.,:+-]+ ?[A-Za-z%]{0,3}$/
/** Below these widths names and texts are cut only where nothing else is left to cut. */
const leastName = 12
const leastText = 24

/** Tells apart what may be cut. @param natural widths that would cut nothing */
export function columnsOf(
  head: readonly string[],
  body: readonly (readonly string[])[],
  natural: readonly number[],
  wraps: boolean,
): readonly Column[] {
  return head.map((name, i) => {
    const width = natural[i] ?? 0
    if (whole.has(name)) return { width, sort: 'fixed', least: width }
    const numbers = body.map((row) => row[i] ?? '').filter((cell) => number.test(cell))
    const least = Math.min(width, Math.max(name.length, ...numbers.map(({ length }) => length)))
    const wrapped = wraps && i === head.length - 1
    if (wrapped) return { width, sort: 'text', least: Math.min(width, Math.max(leastText, least)) }
    return { width, sort: texts.has(name) ? 'text' : keys.has(name) ? 'key' : 'name', least }
  })
}

/** Takes up to `excess` from the widest columns of some sorts until they are all at `floor`. @returns what is left of it */
function narrow(
  widths: number[],
  columns: readonly Column[],
  sorts: readonly Column['sort'][],
  floor: number,
  excess: number,
) {
  let left = excess
  while (left > 0) {
    const able = columns.flatMap((column, i) =>
      sorts.includes(column.sort) && (widths[i] ?? 0) > Math.max(floor, column.least) ? [i] : [],
    )
    const widest = able.toSorted((a, b) => (widths[b] ?? 0) - (widths[a] ?? 0))[0]
    if (widest === undefined) return left
    widths[widest] = (widths[widest] ?? 0) - 1
    left -= 1
  }
  return left
}

/**
 * Widths that fit into `room`: texts give way first, then the space between columns, then names, the longest first.
 * Where even that is not enough, lines are longer: a wrong number is worse.
 */
export function fitted(
  columns: readonly Column[],
  room: number,
): { readonly widths: readonly number[]; readonly gap: number } {
  const widths = columns.map(({ width }) => width)
  const gaps = Math.max(0, widths.length - 1)
  let gap = 3
  let excess = widths.reduce((a, b) => a + b, gap * gaps) - room
  if (excess <= 0) return { widths, gap }
  const tighten = () => {
    if (excess <= 0) return
    gap -= 1
    excess -= gaps
  }
  excess = narrow(widths, columns, ['text'], leastText, excess)
  tighten()
  excess = narrow(widths, columns, ['name', 'key'], 2 * leastName, excess)
  tighten()
  excess = narrow(widths, columns, ['name', 'key'], leastName, excess)
  excess = narrow(widths, columns, ['text', 'name'], 0, excess)
  narrow(widths, columns, ['key'], 0, excess)
  return { widths, gap }
}

type Cut = (text: string) => string

const atEnd =
  (width: number): Cut =>
  (text) =>
    text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`
const atStart =
  (width: number): Cut =>
  (text) =>
    text.length <= width ? text : `…${text.slice(text.length - Math.max(0, width - 1))}`
const inMiddle =
  (width: number): Cut =>
  (text) => {
    if (text.length <= width) return text
    const begin = Math.floor((width - 1) / 2)
    return `${text.slice(0, begin)}…${text.slice(text.length - Math.max(0, width - 1 - begin))}`
  }

/** How the cells of a column are cut: names so that as many as can be told apart still can. */
export function cutterOf(head: string, body: readonly (readonly string[])[], i: number, width: number): Cut {
  if (texts.has(head)) return atEnd(width)
  const cells = new Set(body.map((row) => row[i] ?? ''))
  const kept = (cut: Cut) => new Set([...cells].map(cut)).size
  return [inMiddle(width), atStart(width), atEnd(width)].reduce((best, cut) =>
    kept(cut) > kept(best) ? cut : best,
  )
}

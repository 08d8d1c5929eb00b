import type { Document, LineCounter } from 'yaml'

/** The steps of a field path: `spec.disks[0].name` is spec, disks, 0, name. */
export function stepsOf(field: string): readonly (string | number)[] {
  return [...field.matchAll(/\[(\d+)\]|([^.[\]]+)/g)].map(([, index, name]) =>
    index === undefined ? (name ?? '') : Number(index),
  )
}

/**
 * The line a field stands on, or that of the nearest field above it that is there.
 * @param prefix steps that lead to the object within its document
 */
export function lineOf(
  document: Document.Parsed,
  counter: LineCounter,
  prefix: readonly (string | number)[],
  field: string,
): number | undefined {
  const steps = [...prefix, ...stepsOf(field)]
  for (let length = steps.length; length > 0; length--) {
    const node = document.getIn(steps.slice(0, length), true) as { range?: readonly number[] } | undefined
    const at = node?.range?.[0]
    if (at !== undefined) return counter.linePos(at).line
  }
  return undefined
}

/** A line of a text with its number, and a mark below the column. Long lines are cut to what is around it. */
export function excerpt(text: string, line: number, column: number): string {
  const whole = (text.split('\n')[line - 1] ?? '').replaceAll('\t', ' ').trimEnd()
  const from = Math.max(0, column - 61)
  const shown = whole.slice(from, from + 100)
  const label = String(line)
  const mark = ' '.repeat(Math.max(0, Math.min(column - 1 - from, shown.length)))
  return `  ${label} | ${shown}\n  ${' '.repeat(label.length)} | ${mark}^`
}

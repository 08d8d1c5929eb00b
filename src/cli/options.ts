import { UsageError } from './failure.ts'
import type { Format } from './output.ts'

/** Milliseconds of a Go duration such as `90s`, `1m30s`, `500ms`; a bare number is seconds. @throws UsageError */
export function durationMs(text: string): number {
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text) * 1000
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)]
  if (parts.length === 0 || parts.map((p) => p[0]).join('') !== text) {
    throw new UsageError(`"${text}" is no duration`, 'write 30s, 5m or 1h30m')
  }
  const unit: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
  return parts.reduce((sum, [, value = '0', name = 's']) => sum + Number(value) * (unit[name] ?? 0), 0)
}

/** One of the output formats a command knows. @param others formats that are read elsewhere @throws UsageError */
export function formatOf(
  text: string | undefined,
  known: readonly NonNullable<Format>[],
  others: readonly string[] = [],
): Format {
  if (text === undefined) return undefined
  const found = known.find((name) => name === text)
  if (found) return found
  throw new UsageError(
    `output format "${text}" is not known here`,
    `formats are: ${[...known, ...others].join(', ')}`,
  )
}

/** One of some words. @throws UsageError naming the option */
export function oneOf<T extends string>(option: string, text: string, known: readonly T[]): T {
  const found = known.find((name) => name === text)
  if (found) return found
  throw new UsageError(`${option}=${text} is not known`, `values are: ${known.join(', ')}`)
}

/** `true` and `false` as flags with a value have them. @throws UsageError */
export function flagOf(option: string, value: string | boolean | undefined, fallback: boolean): boolean {
  if (value === undefined) return fallback
  if (typeof value === 'boolean') return value
  return oneOf(option, value, ['true', 'false']) === 'true'
}

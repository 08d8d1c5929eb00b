import { z } from 'zod'

const suffixes: Readonly<Record<string, bigint>> = {
  '': 1n,
  k: 1000n,
  M: 1000n ** 2n,
  G: 1000n ** 3n,
  T: 1000n ** 4n,
  P: 1000n ** 5n,
  E: 1000n ** 6n,
  Ki: 1n << 10n,
  Mi: 1n << 20n,
  Gi: 1n << 30n,
  Ti: 1n << 40n,
  Pi: 1n << 50n,
  Ei: 1n << 60n,
}

const pattern = /^(\d+)(?:\.(\d{1,9}))?(|[kMGTPE]|[KMGTPE]i)$/

/** Digits that a number may have before each suffix, one more where that is at most 7: so that 2^63 is never reached. */
const digits: readonly (readonly [suffix: string, most: number])[] = [
  ...([
    ['', 18],
    ['(?:k|Ki)', 15],
    ['(?:M|Mi)', 12],
    ['(?:G|Gi)', 9],
  ] as const),
  ...([
    ['(?:T|Ti)', 6],
    ['(?:P|Pi)', 3],
    ['(?:E|Ei)', 0],
  ] as const),
]
const forms = digits.map(([suffix, most]) => {
  const whole = most === 0 ? '[0-7]' : `[0-7]?\\d{1,${most}}`
  return `${whole}(?:\\.\\d{1,9})?${suffix}`
})

/**
 * What a quantity looks like, for schemas; in RE2's syntax, which is what API servers read. The bound is part of it: CEL
 * that compares quantities of each disk costs more than an API server lets a rule cost.
 */
export const quantityPattern = `^(?:${forms.join('|')})$`
const bounded = new RegExp(quantityPattern)

/**
 * Bytes of a Kubernetes quantity (`512Mi`, `1.5Gi`, `1G`, a plain integer). Fractions round up, as Kubernetes does.
 * @returns undefined where the text is no quantity of bytes or exceeds 2^63 - 1.
 */
export function parseQuantity(text: string | number): bigint | undefined {
  const match = pattern.exec(String(text))
  if (!match) return undefined
  const [, whole = '0', fraction = '', suffix = ''] = match
  const unit = suffixes[suffix]
  if (unit === undefined) return undefined
  const scale = 10n ** BigInt(fraction.length)
  const bytes = (BigInt(whole + fraction) * unit + scale - 1n) / scale
  return bytes < 1n << 63n ? bytes : undefined
}

/** Bytes as a number. @throws RangeError where `parseQuantity` gives undefined: only for validated text. */
export function bytesOf(text: string | number): number {
  const bytes = parseQuantity(text)
  if (bytes === undefined) throw new RangeError(`not a quantity: ${text}`)
  return Number(bytes)
}

/** Bytes as the shortest exact binary quantity: 536870912 is `512Mi`. */
export function formatQuantity(bytes: number | bigint): string {
  let value = BigInt(bytes)
  let unit = ''
  for (const next of ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']) {
    if (value === 0n || value % 1024n !== 0n) break
    value /= 1024n
    unit = next
  }
  return `${value}${unit}`
}

/** Bytes for people, rounded down to a tenth: 84599750656 is `78.7Gi`. */
export function approximateQuantity(bytes: number | bigint): string {
  const units = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']
  let value = Number(bytes)
  let step = 0
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024
    step += 1
  }
  return `${Math.floor(value * 10) / 10}${units[step]}`
}

/** A quantity of bytes in a schema; in CRDs it becomes `x-kubernetes-int-or-string`. */
export function quantity(description: string) {
  return z
    .custom<string | number>(
      (value) =>
        typeof value === 'string'
          ? bounded.test(value)
          : // As in Kubernetes' schemas a number is an integer; a fraction is a text.
            Number.isInteger(value) && parseQuantity(value as number) !== undefined,
      {
        error: 'must be a quantity of bytes such as 512Mi or 10Gi',
      },
    )
    .meta({ description, intOrString: true })
}

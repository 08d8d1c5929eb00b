/** The value below which `part` (0 to 1) of the samples lie. */
export function percentile(samples: readonly number[], part: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN
}

export const median = (samples: readonly number[]): number => percentile(samples, 0.5)

export interface Figure {
  readonly what: string
  readonly value: string
  readonly goal: string
}

export const ms = (value: number): string =>
  value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`

/** Runs `one` `count` times and collects what it returns. */
export async function repeat(count: number, one: (index: number) => Promise<number>): Promise<number[]> {
  const samples: number[] = []
  for (let index = 0; index < count; index += 1) samples.push(await one(index))
  return samples
}

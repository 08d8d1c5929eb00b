/** Milliseconds before try `failures` + 1: `base` doubled a failure, at most `cap`; 0 after no failure. */
export function exponential(failures: number, base: number, cap: number): number {
  if (failures <= 0) return 0
  return Math.min(cap, base * 2 ** Math.min(failures - 1, 30))
}

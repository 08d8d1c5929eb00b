/** Prints a measured time, which no test asserts: machines are noisy. */
export function figure(what: string, beganMs: number): void {
  const seconds = ((performance.now() - beganMs) / 1000).toFixed(1)
  process.stderr.write(`figure: ${what}: ${seconds} s\n`)
}

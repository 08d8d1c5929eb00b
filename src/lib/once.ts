/** The same, of which only the first call does anything: what is given back twice must not count twice. */
export function once(fn: () => void): () => void {
  let done = false
  return () => {
    if (done) return
    done = true
    fn()
  }
}

import { enableCompileCache } from 'node:module'
import { basename, dirname, join } from 'node:path'

/**
 * The folder of the installation, and compiled code kept in it between runs: half of what a short command costs is
 * compiling. In a folder of the checkout: whoever could write to a shared one could make us run what they like.
 * @param folder of the program's first file: src, or one in .cache that scripts/bundle.ts made
 */
export function installation(folder: string): string {
  const above = dirname(folder)
  const root = basename(above) === '.cache' ? dirname(above) : above
  enableCompileCache(join(root, '.cache', 'compiled'))
  return root
}

/** Aborted by the first SIGINT or SIGTERM, so that everything ends in order; a second one ends the process at once. */
export function stoppedBySignals(): AbortSignal {
  const stopping = new AbortController()
  const onSignal = (name: NodeJS.Signals): void => {
    if (stopping.signal.aborted) process.exit(1)
    stopping.abort(new Error(`stopped by ${name}`))
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  return stopping.signal
}

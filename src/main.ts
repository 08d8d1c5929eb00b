import { enableCompileCache } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock } from './lib/clock.ts'

// From src/main.ts as from .cache/bundle/main.js, which scripts/bundle.ts makes.
const here = dirname(fileURLToPath(import.meta.url))
const root = here.endsWith(join('.cache', 'bundle')) ? dirname(dirname(here)) : dirname(here)

// Compiled code is kept between runs: half of what a short command costs is compiling. In a folder of the checkout:
// whoever could write to a shared one could make us run what they like.
enableCompileCache(join(root, '.cache', 'compiled'))

const stopping = new AbortController()

/** The first signal asks everything to end in order; a second one ends the process at once. */
function onSignal(name: NodeJS.Signals): void {
  if (stopping.signal.aborted) process.exit(1)
  stopping.abort(new Error(`stopped by ${name}`))
}
process.on('SIGINT', onSignal)
process.on('SIGTERM', onSignal)

// A reader that went away (`plasmavmc get vms | head -1`) is no error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

const { runProgram } = await import('./cli/program.ts')
process.exitCode = await runProgram(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  uid: process.getuid?.() ?? 0,
  clock: systemClock,
  signal: stopping.signal,
  program: join(root, 'bin', 'plasmavmc'),
  root,
})

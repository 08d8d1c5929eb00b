import { join } from 'node:path'
import { systemClock } from './lib/clock.ts'
import { installation, stoppedBySignals } from './lib/startup.ts'

const root = installation(import.meta.dirname)
const signal = stoppedBySignals()

// A reader that went away (`plasmavmc get vms | head -1`) is no error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

// bin/plasmavmc says so where it was called by this name, which kubectl looks for.
const plugin = process.argv[2] === '--as=kubectl-plasmavmc'

const { runProgram } = await import('./cli/program.ts')
process.exitCode = await runProgram(process.argv.slice(plugin ? 3 : 2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  uid: process.getuid?.() ?? 0,
  clock: systemClock,
  signal,
  program: join(root, 'bin', 'plasmavmc'),
  root,
  plugin,
})

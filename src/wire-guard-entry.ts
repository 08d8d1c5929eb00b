import { installation, stoppedBySignals } from './lib/startup.ts'

/**
 * `guard` of the program without the rest of it: what a server starts. On a busy host each module that is loaded counts,
 * as there are a few seconds until its machines are stopped. Told by flags alone, as `guardFlags` writes them.
 */
installation(import.meta.dirname)
const signal = stoppedBySignals()

const [{ guardCommandLine }, { runGuard }] = await Promise.all([
  import('./wire-guard-settings.ts'),
  import('./wire-guard.ts'),
])
try {
  const { config, replace } = guardCommandLine(process.argv.slice(2))
  await runGuard(config, { signal, stdout: process.stdout, replace, wait: false })
} catch (error) {
  const { message, hint } = error as { message?: string; hint?: string }
  process.stderr.write(`error: ${message ?? error}\n${hint === undefined ? '' : `${hint}\n`}`)
  process.exitCode = 1
}

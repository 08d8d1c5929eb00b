import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Config, isShared } from './config.ts'
import { hostClock } from './host/guard-clock.ts'
import { GuardFence } from './host/guard-fence.ts'
import { spawnGuard } from './host/guard-process.ts'
import { GuardWatch, guardFiles } from './host/guard-watch.ts'
import type { GuardNews } from './host/guard-word.ts'
import type { Log } from './lib/log.ts'
import { guardFlags, leaseTerms, programOf } from './wire-guard-settings.ts'

/** What loads no more than a guard needs, beside the program; the whole program where it is not there. */
function guardEntry(): string {
  const packed = !import.meta.filename.endsWith('.ts')
  const entry = join(import.meta.dirname, packed ? 'guard.js' : 'wire-guard-entry.ts')
  return existsSync(entry) ? entry : (process.argv[1] ?? '')
}

export interface GuardHandle {
  /** Whether guests may be started and resumed here now. Cheap; never throws. */
  readonly tenure: () => ReturnType<GuardWatch['tenure']>
  /** What there is to say of the guard; undefined where there is none by design. */
  readonly news: () => GuardNews | undefined
  /** Called when that has changed, or whether the lease is held. */
  readonly onNews: (listener: () => void) => void
  /** This host's lease as the guard told last, for who measures it; undefined where it told nothing. */
  readonly lease: () => { readonly held: boolean; readonly ageMs?: number } | undefined
  /** Resolves after the signal; the guard itself lives on. */
  readonly stopped: Promise<void>
}

/**
 * Makes sure, until the signal is aborted, that a guard of this program runs for this host, outliving us; does its work
 * where it does not act. To be called once the host's name is its own.
 * @param command what runs `guard`; this very program unless given
 * @throws PlasmaError `BadLeaseTerms`
 */
export function startGuard(
  config: Config,
  log: Log,
  signal: AbortSignal,
  command: readonly string[] = [process.execPath, ...process.execArgv, guardEntry()],
): GuardHandle {
  if (!isShared(config))
    return {
      ...{ tenure: () => ({ state: 'single' }), news: () => undefined, onNews: () => {} },
      ...{ lease: () => undefined, stopped: Promise.resolve() },
    }
  const { deadlineMs } = leaseTerms(config)
  const { runDir, hostName: host } = config
  const fence = GuardFence.of({ runDir, host, clock: hostClock, log })
  const files = guardFiles(runDir, hostClock)
  const watch = new GuardWatch({
    files,
    ...{ deadlineMs, log, program: programOf(config), selfFence: config.fencing !== 'none' },
    spawn: (replace) =>
      spawnGuard(runDir, [...command, 'guard', ...guardFlags(config), ...(replace ? ['--replace'] : [])]),
    stop: () => fence.stop(),
  })
  const lease = () => {
    const record = files.read()
    if (!record) return undefined
    const { held, sentAt } = record
    return { held, ...(sentAt !== undefined && { ageMs: hostClock.elapsed() - sentAt }) }
  }
  return {
    ...{ tenure: () => watch.tenure(), news: () => watch.news(), lease },
    onNews: (listener) => void watch.onNews(listener),
    stopped: watch.run(signal),
  }
}

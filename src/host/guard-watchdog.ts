import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs'
import { basename } from 'node:path'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { whyFile } from '../lib/folders.ts'

/** Of Linux' watchdogs unless told otherwise, ms; of a device that can't be asked. */
const usualTimeoutMs = 60_000

/** A hardware watchdog that resets the host unless it is petted. */
export interface Watchdog {
  /** How long after the last pet it bites at the latest, ms. */
  readonly timeoutMs: number
  /** @throws the system error */
  pet(): void
  /** Stops it in order: nothing is left to watch over. */
  close(): void
}

/**
 * Opens a watchdog of Linux (Documentation/watchdog/watchdog-api.rst): from here on it bites when it is not petted, also
 * when this process is killed.
 * @throws PlasmaError `WatchdogUnusable` naming the device
 */
export function openWatchdog(device: string, sysfs = '/sys/class/watchdog'): Watchdog {
  const fail = (why: string, cause?: unknown) =>
    new PlasmaError('WatchdogUnusable', `--watchdog-device: ${device} ${why}`, {
      hint: 'load the driver of the host (or softdog), stop what else uses it, or choose --fencing guard',
      cause,
    })
  let fd: number
  try {
    // Not made where it is missing: a file would reset nothing.
    fd = openSync(device, 'r+')
  } catch (cause) {
    throw fail(`can't be opened: ${whyFile(cause)}`, cause)
  }
  let timeoutMs = usualTimeoutMs
  if (statSync(device).isCharacterDevice()) {
    const file = `${sysfs}/${basename(device) === 'watchdog' ? 'watchdog0' : basename(device)}/timeout`
    try {
      timeoutMs = Number(readFileSync(file, 'utf8').trim()) * 1_000
      if (!(timeoutMs > 0)) throw new Error('it holds no number of seconds')
    } catch (cause) {
      // Closed in order, or it would reset the host for nothing.
      writeSync(fd, 'V')
      closeSync(fd)
      throw fail(`does not say when it bites: ${file}: ${messageOf(cause)}`, cause)
    }
  }
  return {
    timeoutMs,
    pet: () => void writeSync(fd, '.'),
    close: () => {
      writeSync(fd, 'V')
      closeSync(fd)
    },
  }
}

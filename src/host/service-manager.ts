import { existsSync, readFileSync } from 'node:fs'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { run } from './exec.ts'

/** Longest wait for systemd to take the word, ms. */
const notifyMs = 10_000

/** Whether systemd is process 1 (sd_booted(3)). */
export const isBooted = (): boolean => existsSync('/run/systemd/system')

/**
 * The unit of systemd that a process of ours runs in, by the text of its /proc/PID/cgroup; undefined where that is no
 * service (a shell's scope, another service manager).
 */
export function serviceOf(cgroup: string): string | undefined {
  const line = cgroup.split('\n').find((one) => one.startsWith('0::') || one.includes(':name=systemd:'))
  return line === undefined ? undefined : /\/([^/]+\.service)$/.exec(line)?.[1]
}

/** The service that this process is; undefined where it is none. */
export function ownService(): string | undefined {
  try {
    return serviceOf(readFileSync('/proc/self/cgroup', 'utf8'))
  } catch {
    return undefined
  }
}

/**
 * Tells the service manager that the start is over (sd_notify(3), `READY=1`), where it asked to be told: a unit with
 * `Type=notify`, whose `systemctl start` waits for it. Node.js has no datagram sockets of this kind, so systemd-notify(1)
 * says it, which takes `NotifyAccess=all`. Never rejects: without it the service works as well, and is shown as starting.
 * @param env the environment of this process; programs that it starts are not given the socket
 */
export async function tellReady(env: Readonly<Record<string, string | undefined>>, log: Log): Promise<void> {
  const { NOTIFY_SOCKET, PATH } = env
  if (NOTIFY_SOCKET === undefined) return
  try {
    await run('systemd-notify', ['--ready'], {
      timeoutMs: notifyMs,
      env: { NOTIFY_SOCKET, PATH, LC_ALL: 'C' },
    })
  } catch (error) {
    log.warn('systemd was not told that this server is ready', { reason: messageOf(error) })
  }
}

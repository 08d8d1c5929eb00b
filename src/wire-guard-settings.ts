import { createHash } from 'node:crypto'
import { type Config, flagOf, isShared, loadConfig, settings } from './config.ts'
import { stopMs } from './controllers/guard/rules.ts'
import { formatPeer } from './host/peers.ts'
import { PlasmaError } from './lib/errors.ts'
import { checkTerms, type LeaseTerms } from './runtime/lease.ts'
import { version } from './version.ts'

/** The terms of leases that are configured. @throws PlasmaError `BadLeaseTerms` that names the settings */
export function leaseTerms(config: Config): LeaseTerms {
  const { leaseDuration, leaseRenew, leaseDeadline } = config
  const terms = {
    durationMs: Math.round(leaseDuration * 1_000),
    renewMs: Math.round(leaseRenew * 1_000),
    deadlineMs: Math.round(leaseDeadline * 1_000),
  }
  try {
    checkTerms(terms, stopMs)
  } catch (error) {
    const { message, hint } = error as PlasmaError
    throw new PlasmaError('BadLeaseTerms', `--lease-duration, --lease-renew, --lease-deadline: ${message}`, {
      ...(hint !== undefined && { hint }),
      cause: error,
    })
  }
  return terms
}

/** What a guard depends on: one with another is replaced. */
const guardSettings = settings.filter((name) =>
  /^(dataDir|runDir|hostName|store|kubeconfig|roles|logLevel|etcd|lease|peer|fencing|watchdog)/.test(name),
)
/** Which parts run beside a guard is no concern of its, but without them no configuration for Kubernetes is one. */
const counts = (name: string, { store }: Config): boolean => name !== 'roles' || store === 'kubernetes'

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.join(',')
  if (typeof value === 'object' && value !== null) return formatPeer(value as { host: string; port: number })
  return String(value)
}

/** The flags that tell a guard what this server was told. */
export function guardFlags(config: Config): string[] {
  return guardSettings
    .filter((name) => config[name] !== undefined && counts(name, config))
    .flatMap((name) => [flagOf(name), textOf(config[name])])
}

/** What a guard of this program, told this, calls itself; one by another name is replaced. */
export function programOf(config: Config): string {
  const hash = createHash('sha256')
    .update(JSON.stringify(guardFlags(config)))
    .digest('hex')
  return `${version}/${hash.slice(0, 16)}`
}

/** @throws PlasmaError `BadConfig` where there is no cluster to guard */
export function requireCluster({ store }: Config): void {
  if (isShared({ store })) return
  throw new PlasmaError('BadConfig', `--store: a guard is for etcd or kubernetes, not for ${store}`, {
    hint: 'a host with a store of its own needs none',
  })
}

/**
 * What flags as `guardFlags` writes them say; those of a person are read by the command `guard`.
 * @param words `guard` first; `--replace` may be anywhere after it
 * @throws PlasmaError `BadConfig`
 */
export function guardCommandLine(words: readonly string[]): {
  readonly config: Config
  readonly replace: boolean
} {
  const given: Record<string, string> = {}
  const rest = words.filter((word) => word !== '--replace')
  for (let i = 1; i < rest.length; i += 2) {
    const [flag = '', value] = [rest[i], rest[i + 1]]
    const name = guardSettings.find((one) => flagOf(one) === flag)
    if (rest[0] !== 'guard' || name === undefined || value === undefined)
      throw new PlasmaError(
        'BadConfig',
        `${flag}: is no flag with a value that a server gives to its guard`,
        {
          hint: "see 'plasmavmc help guard'",
        },
      )
    given[name] = value
  }
  return {
    config: loadConfig(given, {}, { uid: process.getuid?.() ?? 0 }),
    replace: rest.length < words.length,
  }
}

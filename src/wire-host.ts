import { type Config, etcdUrls, isShared } from './config.ts'
import { claimHost } from './controllers/host/claim.ts'
import { type HostFacts, isContradicted } from './controllers/host/index.ts'
import { agentLabels } from './controllers/host/register.ts'
import { HostAddresses } from './host/addresses.ts'
import { hostFacts, type QemuBinary } from './host/host-facts.ts'
import { hostIdOf } from './host/host-id.ts'
import { Procfs } from './host/procfs.ts'
import { QemuCapabilities } from './host/qemu-capabilities.ts'
import { systemClock } from './lib/clock.ts'
import { messageOf } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import type { Host } from './resources/kinds.ts'
import { formatQuantity } from './resources/quantity.ts'
import type { Informer } from './runtime/informer.ts'
import type { ObjectStore } from './store/objects.ts'
import { version } from './version.ts'
import type { GuardHandle } from './wire-guard-watch.ts'

/** As Kubernetes names processors. */
const arches: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', riscv64: 'riscv64' }
const arch = arches[process.arch] ?? process.arch

export interface HostOptions {
  readonly config: Config
  readonly objects: ObjectStore
  readonly accelerator: string
  readonly qemu: QemuBinary
  readonly log: Log
}

export interface ThisHost {
  readonly facts: () => Promise<HostFacts>
  /** Absent on a store that no other host has. */
  readonly hostId?: string
}

/**
 * What the agent tells of its host. In a shared store the host's name is made its own first: before this resolves,
 * neither a lease of that name nor a machine may be touched.
 * @throws PlasmaError `HostNameTaken` where another host goes by the name
 */
export async function thisHost(options: HostOptions, signal: AbortSignal): Promise<ThisHost> {
  const { config, objects, accelerator, log } = options
  const facts = factsOf(options)
  if (!isShared(config)) return { facts }
  const { hostName } = config
  const hostId = hostIdOf(config.dataDir)
  const labels = agentLabels(hostName, { arch, accelerator })
  const bootId = new Procfs().bootId()
  const durationMs = config.leaseDuration * 1000
  await claimHost({
    ...{ objects, hostName, labels, hostId, bootId, durationMs, renewMs: config.leaseRenew * 1000 },
    ...{ clock: systemClock, log, signal, fencing: config.fencing },
  })
  return { facts, hostId }
}

function factsOf({ config, accelerator, qemu, log }: HostOptions): ThisHost['facts'] {
  const addresses = HostAddresses.towards(etcdUrls(config))
  let capabilities: QemuCapabilities | undefined
  const can = async (bootId: string): Promise<Pick<HostFacts, 'capabilities'>> => {
    // Not at the first look: starting a QEMU to ask it would compete with the first guests.
    if (capabilities === undefined) {
      capabilities = new QemuCapabilities({ cacheDir: config.runDir, bootId })
      return {}
    }
    try {
      return { capabilities: await capabilities.find((await qemu.find()).path) }
    } catch (error) {
      log.warn('what QEMU can do is not known', { message: messageOf(error) })
      return {}
    }
  }
  return async () => {
    const { cpus, memoryBytes, bootId, qemuVersion = 'none', qemuProblem } = await hostFacts(qemu)
    return {
      ...{ cpus, memory: formatQuantity(memoryBytes), accelerator, qemuVersion, agentVersion: version, arch },
      addresses: await addresses.find(),
      ...(qemuProblem === undefined ? await can(bootId) : { qemuProblem }),
    }
  }
}

/** What tells a host that it has to look at its own object again. */
export interface HostNews {
  readonly hostName: string
  readonly hosts: Pick<Informer<Host>, 'onChange'>
  readonly guard: Pick<GuardHandle, 'tenure' | 'news' | 'onNews'>
}

/**
 * Calls `look` whenever the guard has something new to say, and when a leader that looked before the lease was renewed has
 * written into the Host what is not so any more. Run it before the informer.
 */
export function watchOwnHost({ hostName, hosts, guard }: HostNews, look: () => void): void {
  guard.onNews(look)
  hosts.onChange((_key, host) => {
    if (host?.metadata.name !== hostName || !isContradicted(host)) return
    // While the lease says so too, the leader is right; that it does not any more is news.
    if (guard.tenure().state === 'held' && guard.news()?.agent !== 'silent') look()
  })
}

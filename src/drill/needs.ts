import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { findProgram } from '../host/host-facts.ts'
import { messageOf, type PlasmaError } from '../lib/errors.ts'
import { Network } from './cluster/network.ts'
import type { Group } from './mode.ts'

/** What the failures of a group can't be played without, and is not there. */
export interface Lack {
  readonly what: string
  /** What to do about it. */
  readonly hint: string
}

/** What is looked at. */
export interface Probes {
  readonly hasProgram: (name: string) => Promise<boolean>
  /** Whether the guest's kernel and initrd are there. */
  readonly hasGuest: () => Promise<boolean>
  readonly uid: number
  /** Makes a network of hosts and removes it. @throws where this machine does not allow that */
  readonly tryNetwork: () => Promise<void>
}

/** The programs of a cluster, with the packages of Debian that have them. */
const programs: readonly (readonly [string, string])[] = [
  ['ip', 'iproute2'],
  ['nft', 'nftables'],
  ['nsenter', 'util-linux'],
  ['unshare', 'util-linux'],
  ['setpriv', 'util-linux'],
  ['etcd', 'etcd-server'],
  ['etcdctl', 'etcd-client'],
]

async function lacksOfAll(probes: Probes): Promise<Lack[]> {
  const guest = { what: "the drill's guest is not built", hint: 'sh scripts/guest.sh .cache/guest' }
  const qemu = { what: 'no QEMU', hint: 'install qemu-system-x86 (Debian), qemu-kvm (Fedora)' }
  return [
    ...((await probes.hasGuest()) ? [] : [guest]),
    ...((await probes.hasProgram('qemu-system-x86_64')) ? [] : [qemu]),
  ]
}

async function lacksOfCluster(probes: Probes): Promise<Lack[]> {
  const missing: (readonly [string, string])[] = []
  for (const one of programs) if (!(await probes.hasProgram(one[0]))) missing.push(one)
  const lacks: Lack[] = []
  if (missing.length > 0) {
    const packages = [...new Set(missing.map(([, name]) => name))].join(' ')
    const what = `not installed: ${missing.map(([name]) => name).join(', ')}`
    lacks.push({ what, hint: `apt install ${packages} (Debian)` })
  }
  if (probes.uid !== 0)
    lacks.push({ what: 'not root, who alone may make network namespaces', hint: 'run it with sudo' })
  if (lacks.length > 0) return lacks
  try {
    await probes.tryNetwork()
    return []
  } catch (error) {
    const { cause = error, hint = 'run it on the machine itself' } = error as Partial<PlasmaError>
    return [{ what: `network namespaces can't be made: ${messageOf(cause)}`, hint }]
  }
}

/** What this machine lacks for the failures of a group; nothing where they can be played. */
export async function lacksOf(group: Group, probes: Probes): Promise<readonly Lack[]> {
  const own = group === 'cluster' ? await lacksOfCluster(probes) : []
  return [...(await lacksOfAll(probes)), ...own]
}

/** Looks at this machine. */
export function probesOf(guestDir: string, uid: number): Probes {
  return {
    uid,
    hasProgram: async (name) => (await findProgram(name)) !== undefined,
    hasGuest: () =>
      Promise.all(['vmlinuz', 'initrd.img'].map((file) => access(join(guestDir, file)))).then(
        () => true,
        () => false,
      ),
    tryNetwork: async () => {
      await (await Network.make(['h1'])).close()
    },
  }
}

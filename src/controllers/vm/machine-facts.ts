import type { Machines } from '../../host/ports.ts'
import { hotplugPorts } from '../../host/qemu-buses.ts'
import { diskDeviceId } from '../../host/qemu-disks.ts'

/** What a QEMU says of its own parts. Asked only where something is to be changed. */
export interface MachineFacts {
  /** QOM path of the bus by id of every device that has an id; empty where it has none. */
  readonly devices: ReadonlyMap<string, string>
  /** Spare ports with nothing in them; only a q35 has any. */
  readonly freePorts: readonly string[]
  /** Names of all block nodes. */
  readonly nodes: ReadonlySet<string>
  /** The node a disk's device reads and writes, and its virtual size, by the disk's name. */
  readonly disks: ReadonlyMap<string, { readonly node: string; readonly bytes: number }>
  readonly netdevs: ReadonlySet<string>
  /** Forwards as `tcp:127.0.0.1:8080-:80`, by netdev. */
  readonly forwards: ReadonlyMap<string, readonly string[]>
}

const diskPrefix = `/machine/peripheral/${diskDeviceId('')}`

/** The disk a device's QOM path belongs to; undefined for a device that is none of ours. */
export function diskOf(qdev: string | undefined): string | undefined {
  const path = qdev ?? ''
  return path.startsWith(diskPrefix) ? path.slice(diskPrefix.length).split('/')[0] : undefined
}

/** Forwards in the text of QEMU's `info usernet`, by netdev. */
export function parseUsernet(text: string): ReadonlyMap<string, readonly string[]> {
  const forwards = new Map<string, string[]>()
  let rules: string[] | undefined
  for (const line of text.split(/\r?\n/)) {
    const head = /^Hub -?\d+ \((.+)\):$/.exec(line.trim())
    if (head?.[1] !== undefined) {
      rules = []
      forwards.set(head[1], rules)
    }
    const row = /^\s*(TCP|UDP)\[HOST_FORWARD\]\s+-?\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\s/.exec(line)
    if (row)
      rules?.push(`${row[1]?.toLowerCase()}:${row[2] === '*' ? '0.0.0.0' : row[2]}:${row[3]}-:${row[4]}`)
  }
  return forwards
}

/** Netdevs in the text of QEMU's `info network`, with and without a card. */
export function parseNetdevs(text: string): ReadonlySet<string> {
  const names = [...text.matchAll(/^ ?\\? ?(\S+): index=\d+,type=(?!nic\b)/gm)].map((match) => match[1] ?? '')
  return new Set(names)
}

async function askDevices(uid: string, machines: Machines): Promise<ReadonlyMap<string, string>> {
  const children = await machines.execute(uid, 'qom-list', { path: '/machine/peripheral' })
  const ids = children.filter(({ type }) => type.startsWith('child<')).map(({ name }) => name)
  const buses = await Promise.all(
    ids.map(async (id) => {
      const path = `/machine/peripheral/${id}`
      try {
        return String(await machines.execute(uid, 'qom-get', { path, property: 'parent_bus' }))
      } catch (error) {
        // It may have gone meanwhile: then it is not listed either.
        const left = await machines.execute(uid, 'qom-list', { path: '/machine/peripheral' })
        if (left.some(({ name }) => name === id)) throw error
        return undefined
      }
    }),
  )
  return new Map(ids.flatMap((id, i) => (buses[i] === undefined ? [] : [[id, buses[i]] as const])))
}

/** Asks a QEMU for its parts. @throws QmpError family */
export async function askFacts(uid: string, machines: Machines): Promise<MachineFacts> {
  const monitor = (line: string) => machines.execute(uid, 'human-monitor-command', { 'command-line': line })
  const devices = await askDevices(uid, machines)
  const nodes = await machines.execute(uid, 'query-named-block-nodes', { flat: true })
  const blocks = await machines.execute(uid, 'query-block')
  const used = new Set([...devices.values()].map((bus) => bus.split('/').at(-1)))
  return {
    devices,
    freePorts: hotplugPorts.filter((port) => devices.has(port) && !used.has(port)),
    nodes: new Set(nodes.flatMap((node) => node['node-name'] ?? [])),
    disks: new Map(
      blocks.flatMap(({ qdev, inserted }) => {
        const [name, node] = [diskOf(qdev), inserted?.['node-name']]
        if (name === undefined || node === undefined || !inserted) return []
        return [[name, { node, bytes: inserted.image['virtual-size'] }] as const]
      }),
    ),
    netdevs: parseNetdevs(await monitor('info network')),
    forwards: parseUsernet(await monitor('info usernet')),
  }
}

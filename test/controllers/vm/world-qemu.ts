import type { QmpCall } from '../../../src/controllers/vm/live-steps.ts'
import type { MachineFacts } from '../../../src/controllers/vm/machine-facts.ts'
import type { PendingDevices } from '../../../src/host/ports.ts'
import { nodeNames } from '../../../src/host/qemu-disks.ts'
import type { RunState } from '../../../src/qmp/types.ts'
import { bytesOf } from '../../../src/resources/quantity.ts'
import type { VmSpec } from '../../../src/resources/vm.ts'

/** A QEMU of the world: what it was told, what it has, and what its guest has been asked to let go. */
export class WorldQemu {
  readonly pid: number
  readonly startTime: number
  readonly launchId: string
  state: RunState = 'prelaunch'
  stopped = false
  /** launch.json: outlives the agent. */
  record: VmSpec
  pending: PendingDevices = { adding: [], leaving: [] }
  readonly devices = new Set<string>()
  readonly nodes = new Set<string>()
  readonly sizes = new Map<string, number>()
  readonly letGo = new Set<string>()

  constructor(pid: number, startTime: number, launchId: string, spec: VmSpec) {
    this.pid = pid
    this.startTime = startTime
    this.launchId = launchId
    this.record = spec
    for (const { name, size = 0 } of spec.disks) {
      this.devices.add(`disk-${name}`)
      this.#open(name, bytesOf(size))
    }
  }

  #open(name: string, bytes: number): void {
    const { format, file } = nodeNames(name)
    this.nodes.add(format).add(file)
    this.sizes.set(format, bytes)
  }

  facts(): MachineFacts {
    return {
      devices: new Map([...this.devices].map((id) => [id, '/machine/i440fx/pci.0'])),
      freePorts: [],
      nodes: new Set(this.nodes),
      disks: new Map(
        [...this.devices].map((id) => [
          id.slice('disk-'.length),
          { node: id, bytes: this.sizes.get(id) ?? 0 },
        ]),
      ),
      ...{ netdevs: new Set<string>(), forwards: new Map() },
    }
  }

  /** Does a command as QEMU does. @returns its error; `fileBytes` is what a disk's file has */
  obey({ command, args }: QmpCall, fileBytes: (disk: string) => number | undefined): string | undefined {
    switch (command) {
      case 'blockdev-add': {
        const node = args['node-name']
        if (this.nodes.has(node)) return 'duplicate node name'
        if (node.startsWith('file-')) {
          if (fileBytes(node.slice('file-'.length)) === undefined) return 'no such file'
        } else this.sizes.set(node, fileBytes(node.slice('disk-'.length)) ?? 0)
        this.nodes.add(node)
        return undefined
      }
      case 'blockdev-del': {
        const node = args['node-name']
        if (this.devices.has(node)) return 'node is in use'
        if (node.startsWith('file-') && this.nodes.has(`disk-${node.slice('file-'.length)}`))
          return 'node is in use'
        return this.nodes.delete(node) ? undefined : 'no such node'
      }
      case 'device_add':
        if (this.devices.has(args.id)) return 'duplicate id'
        if (!this.nodes.has(args.id)) return 'no such node'
        this.devices.add(args.id)
        return undefined
      case 'device_del':
        if (!this.devices.has(args.id)) return 'no such device'
        this.letGo.add(args.id)
        return undefined
      case 'block_resize':
        this.sizes.set(args['node-name'], args.size)
        return undefined
      default:
        return undefined
    }
  }

  /** The guest lets go what it was asked to. */
  guestRuns(): void {
    if (this.state !== 'running' || this.stopped) return
    for (const id of this.letGo) this.devices.delete(id)
    this.letGo.clear()
  }
}

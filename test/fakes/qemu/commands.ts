import { actionValues, type Disk, type Machine, ResetRequired } from './machine.ts'
import type { Behaviour } from './script.ts'

type Args = Readonly<Record<string, unknown>>

/** What a command may need. */
export interface Context {
  readonly machine: Machine
  readonly behaviour: () => Behaviour
  readonly name: string
  readonly uid: string
  /** Ids of devices, and names of block nodes and network back ends. */
  readonly devices: Set<string>
  readonly nodes: Set<string>
  readonly netdevs: Set<string>
  readonly emit: (event: string, data?: Args) => void
}

/** An error of QMP with its QAPI class. */
export class QmpError extends Error {
  readonly class: string

  constructor(errorClass: string, description: string) {
    super(description)
    this.class = errorClass
  }
}

const generic = (description: string) => new QmpError('GenericError', description)

interface Command {
  readonly required?: readonly string[]
  /** Undefined: any. */
  readonly optional?: readonly string[]
  readonly run: (context: Context, args: Args) => unknown
}

export const version = { qemu: { micro: 0, minor: 2, major: 7 }, package: 'a double for tests' }
const done = {}

/** Drivers a device_add of ours may name; QEMU knows several hundred. */
const driverPattern = /^(virtio|usb|scsi|ide|nvme|pc-dimm|e1000|rtl8139|i6300esb|pvpanic)/

function addTo(set: Set<string>, id: unknown, twice: (id: string) => string): object {
  if (typeof id === 'string') {
    if (set.has(id)) throw generic(twice(id))
    set.add(id)
  }
  return done
}

function takeFrom(set: Set<string>, id: unknown, error: QmpError): object {
  if (!set.delete(String(id))) throw error
  return done
}

/** The guest's port writes that a test may do in its place through `o/SIZE PORT VALUE`: q35 and pvpanic. */
function writePort(machine: Machine, port: number, value: number): void {
  if (port === 0x604 && value === 0x2000) machine.act('poweroff')
  else if (port === 0xcf9 && (value & 4) !== 0) machine.act('reboot')
  else if (port === 0x505 && (value & 1) !== 0) machine.act('panic')
}

function humanMonitor({ machine }: Context, line: string): string {
  const write = /^o\s*\/[bwl] (\S+) (\S+)$/.exec(line)
  if (write) writePort(machine, Number(write[1]), Number(write[2]))
  if (write || line === '') return ''
  if (line === 'info status') {
    const { state, running } = machine
    const detail = running || state === 'paused' ? '' : ` (${state})`
    return `VM status: ${running ? 'running' : `paused${detail}`}\r\n`
  }
  return `unknown command: '${line.split(' ')[0]}'\r\n`
}

function setActions(machine: Machine, args: Args): object {
  for (const [key, value] of Object.entries(args)) {
    if (!actionValues[key]?.includes(String(value)))
      throw generic(`Parameter '${key}' does not accept value '${value}'`)
  }
  for (const [key, value] of Object.entries(args)) machine.actions.set(key, String(value))
  return done
}

function cont({ machine }: Context): object {
  try {
    machine.cont()
    return done
  } catch (error) {
    throw error instanceof ResetRequired ? generic(error.message) : error
  }
}

function removeDevice(context: Context, id: string): object {
  takeFrom(context.devices, id, new QmpError('DeviceNotFound', `Device '${id}' not found`))
  context.emit('DEVICE_DELETED', { device: id, path: `/machine/peripheral/${id}` })
  return done
}

function resize({ nodes }: Context, args: Args): object {
  const { device = '', 'node-name': node = '' } = args
  if (!nodes.has(String(node)) && !nodes.has(String(device)))
    throw generic(`Cannot find device='${device}' nor node-name='${node}'`)
  return done
}

/** What query-block says of a disk, as far as it is read. */
function blockInfo({ id, node, status }: Disk): object {
  const image = { filename: node, format: 'raw', 'virtual-size': 1 << 20 }
  const inserted = { file: node, 'node-name': node, ro: false, drv: 'raw', image }
  const qdev = `/machine/peripheral/${id}/virtio-backend`
  return { 'io-status': status, device: '', locked: false, removable: false, inserted, qdev, type: 'unknown' }
}

export const commands: Readonly<Record<string, Command>> = {
  'query-version': { run: () => version },
  'query-commands': { run: () => Object.keys(commands).map((name) => ({ name })) },
  'query-name': { run: ({ name }) => ({ name }) },
  'query-uuid': { run: ({ uid }) => ({ UUID: uid }) },
  'query-status': {
    run: ({ machine: { state, running } }) => ({ status: state, singlestep: false, running }),
  },
  cont: { run: cont },
  stop: {
    run: ({ machine }) => {
      machine.stop()
      return done
    },
  },
  system_reset: {
    run: ({ machine }) => {
      machine.reset(false)
      return done
    },
  },
  system_powerdown: {
    run: ({ machine, behaviour }) => {
      machine.powerdown(behaviour().powerdown !== 'ignore')
      return done
    },
  },
  quit: {
    run: ({ machine, behaviour }) => {
      if (behaviour().quit !== 'ignore') machine.quit('host-qmp-quit')
      return done
    },
  },
  'human-monitor-command': {
    required: ['command-line'],
    optional: ['cpu-index'],
    run: (context, args) => humanMonitor(context, String(args['command-line'])),
  },
  'set-action': {
    optional: Object.keys(actionValues),
    run: ({ machine }, args) => setActions(machine, args),
  },
  device_add: {
    required: ['driver'],
    run: ({ devices }, { driver, id }) => {
      if (!driverPattern.test(String(driver))) throw generic(`'${driver}' is not a valid device model name`)
      return addTo(devices, id, (twice) => `Duplicate device ID '${twice}'`)
    },
  },
  device_del: { required: ['id'], optional: [], run: (context, { id }) => removeDevice(context, String(id)) },
  'blockdev-add': {
    required: ['driver'],
    run: ({ nodes }, { 'node-name': node }) =>
      addTo(nodes, node, (twice) => `Duplicate nodes with node-name='${twice}'`),
  },
  'blockdev-del': {
    required: ['node-name'],
    optional: [],
    run: ({ nodes }, { 'node-name': node }) =>
      takeFrom(nodes, node, generic(`Failed to find node with node-name='${node}'`)),
  },
  block_resize: { required: ['size'], optional: ['device', 'node-name'], run: resize },
  netdev_add: {
    required: ['type', 'id'],
    run: ({ netdevs }, { id }) => addTo(netdevs, id, (twice) => `Duplicate ID '${twice}' for netdev`),
  },
  netdev_del: {
    required: ['id'],
    optional: [],
    run: ({ netdevs }, { id }) =>
      takeFrom(netdevs, id, new QmpError('DeviceNotFound', `Device '${id}' not found`)),
  },
  'query-block': { run: ({ machine }) => machine.disks.map(blockInfo) },
  balloon: { required: ['value'], optional: [], run: () => done },
}

/** Checks the arguments as QAPI does and runs the command. @throws QmpError */
export function runCommand(name: string, args: Args, context: Context): unknown {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!command) throw new QmpError('CommandNotFound', `The command ${name} has not been found`)
  const { required = [], optional } = command
  const missing = required.find((key) => args[key] === undefined)
  if (missing !== undefined) throw generic(`Parameter '${missing}' is missing`)
  const open = required.length > 0 && optional === undefined
  const known = [...required, ...(optional ?? [])]
  const unexpected = open ? undefined : Object.keys(args).find((key) => !known.includes(key))
  if (unexpected !== undefined) throw generic(`Parameter '${unexpected}' is unexpected`)
  return command.run(context, args)
}

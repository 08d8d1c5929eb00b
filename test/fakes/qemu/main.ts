/** The fake QEMU's process; test/fakes/qemu-system-fake starts it. */
import { appendFileSync, existsSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { dirname, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { messageOf } from '../../../src/lib/errors.ts'
import { Options } from './argv.ts'
import { type Disk, Machine, type MachineHooks } from './machine.ts'
import { Monitor } from './monitor.ts'
import { lockPidfile, takeName } from './pidfile.ts'
import { type Behaviour, type Control, controlName, nextBehaviour, note } from './script.ts'

function fail(words: string): never {
  process.stderr.write(`qemu-system-x86_64: ${words}\n`)
  process.exit(1)
}

function optionsOf(args: readonly string[]): Options {
  try {
    return new Options(args)
  } catch (error) {
    return fail(messageOf(error))
  }
}

// As QEMU calls its main thread; Node.js may have called it otherwise.
writeFileSync('/proc/self/comm', 'qemu-system-x86')
const options = optionsOf(process.argv.slice(2))
const { pid } = process
const uid = options.first('uuid')?.toLowerCase() ?? ''
const name = options.lists('name', 'guest')[0]?.get('guest') ?? ''
const pidfile = options.first('pidfile')
/** `<run-dir>` of `<run-dir>/vms/<uid>/qemu.pid`. */
const runDir = resolve(dirname(pidfile ?? '/nowhere/at/all/x'), '..', '..')
const sockets: Server[] = []

const first = nextBehaviour(runDir, uid)
let behaviour: Behaviour = first.behaviour
note(runDir, { pid, uid, what: 'start', launch: first.launch })
// Before anything that could stop a second one: that it was started at all is what matters.
if (uid !== '' && !(await takeName(`plasmavmc-fake-uid-${uid}`))) note(runDir, { pid, uid, what: 'second' })
if (pidfile !== undefined) await lockPidfile(pidfile).catch((error: unknown) => fail(messageOf(error)))

function leave(code: number, words?: string): never {
  note(runDir, { pid, uid, what: 'exit', code })
  if (words !== undefined) process.stderr.write(`${words}\n`)
  process.exit(code)
}

/** Ends in order, as QEMU does: its sockets and its pidfile go with it. */
async function exit(code: number): Promise<void> {
  await monitor.close()
  for (const server of sockets) server.close()
  if (pidfile !== undefined) rmSync(pidfile, { force: true })
  leave(code)
}

const crash = () => leave(1, behaviour.lastWords)
const consoleLog = options.lists('chardev', 'backend').find((members) => members.has('logfile'))

const disks = options.lists('device', 'driver').flatMap((members): Disk[] => {
  const [id, node] = [members.get('id'), members.get('drive')]
  return id === undefined || node === undefined ? [] : [{ id, node, status: 'ok' }]
})
let booted = false
const hooks: MachineHooks = {
  emit: (event, data) => monitor.emit(event, data),
  resumed: () => {
    const log = consoleLog?.get('logfile')
    if (!booted && log !== undefined) appendFileSync(log, `fake guest ${name} is up\n`)
    const act = booted ? undefined : behaviour.guest
    booted = true
    if (act) setImmediate(() => machine.act(act))
  },
  exit: (code) => {
    // After the answer to the command that asked for it.
    setImmediate(() => void exit(code))
  },
}
const machine = new Machine(hooks, disks)
for (const members of options.lists('action', '')) {
  for (const [key, value] of members) machine.actions.set(key, value)
}

const idsOf = (option: string, key: string) =>
  new Set(options.lists(option, '').flatMap((members) => members.get(key) ?? []))
const monitor = new Monitor({
  behaviour: () => behaviour,
  note: (command) => note(runDir, { pid, uid, what: 'command', name: command }),
  crash,
  context: {
    ...{ machine, name, uid, behaviour: () => behaviour },
    devices: idsOf('device', 'id'),
    nodes: idsOf('blockdev', 'node-name'),
    netdevs: idsOf('netdev', 'id'),
    emit: (event, data) => monitor.emit(event, data),
  },
})

function control(command: Control): void {
  switch (command.do) {
    case 'behave':
      behaviour = { ...behaviour, ...command.as }
      return monitor.wake()
    case 'guest':
      return machine.act(command.act)
    case 'drop':
      return monitor.drop()
    case 'exit':
      leave(command.code, command.words)
  }
}

/** A socket whose clients are heard and not answered: console, guest agent, VNC. */
function listenTo(path: string): Promise<void> {
  const server = createServer((socket) => socket.on('error', () => {}).resume())
  sockets.push(server)
  rmSync(path, { force: true })
  return new Promise((done, failed) => {
    server.once('error', failed)
    server.listen(path, done)
  })
}

// Nothing outlives its test: one whose launch was under way when the test ended finds the folder gone.
setInterval(() => {
  if (!existsSync(resolve(runDir, '..'))) process.exit(1)
}, 1_000).unref()
if (behaviour.exitCode !== undefined) leave(behaviour.exitCode, behaviour.lastWords)
if (behaviour.exitAfterMs !== undefined) setTimeout(crash, behaviour.exitAfterMs)
process.on('SIGTERM', () => {
  process.stderr.write('qemu-system-x86_64: terminating on signal 15\n')
  machine.quit('host-signal')
})

const controller = createServer((socket) => {
  createInterface(socket).on('line', (line) => {
    control(JSON.parse(line) as Control)
    socket.write('ok\n')
  })
})
controller.listen(controlName(pid))
for (const id of ['console', 'qga']) {
  const path = options.socketOf(id)
  if (path !== undefined) await listenTo(path).catch((error: unknown) => fail(messageOf(error)))
}
const qmp = options.socketOf('qmp')
if (qmp !== undefined) await monitor.listen(qmp).catch((error: unknown) => fail(messageOf(error)))
if (!options.has('S')) machine.cont()

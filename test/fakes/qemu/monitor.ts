import { renameSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type Context, commands, QmpError, runCommand, version } from './commands.ts'
import { JsonStream } from './json-stream.ts'
import type { Behaviour } from './script.ts'

type Json = Readonly<Record<string, unknown>>

export interface MonitorHooks {
  readonly behaviour: () => Behaviour
  readonly context: Context
  readonly note: (command: string) => void
  readonly crash: () => void
}

const members: ReadonlySet<string> = new Set(['execute', 'exec-oob', 'arguments', 'id'])

/** The request in a JSON text. @throws QmpError in QEMU's words; `id` of the request where it has one */
function requestOf(text: string): { name: string; oob: boolean; args: Json; id?: unknown } {
  let value: Json
  try {
    value = JSON.parse(text) as Json
  } catch {
    throw new QmpError('GenericError', `JSON parse error, invalid text '${text.slice(0, 40)}'`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new QmpError('GenericError', 'QMP input must be a JSON object')
  const { id, arguments: args = {} } = value
  const fail = (words: string) => Object.assign(new QmpError('GenericError', words), { id })
  const stranger = Object.keys(value).find((key) => !members.has(key))
  if (stranger !== undefined) throw fail(`QMP input member '${stranger}' is unexpected`)
  const name = value['exec-oob'] ?? value['execute']
  if (typeof name !== 'string') throw fail("QMP input lacks member 'execute'")
  return { name, oob: value['exec-oob'] !== undefined, args: args as Json, ...(id !== undefined && { id }) }
}

/** One client that is served: greeted, negotiating, then executing its commands in order. */
class Client {
  readonly socket: Socket
  readonly #hooks: MonitorHooks
  readonly #stream = new JsonStream()
  readonly #waiting: string[] = []
  #negotiated = false
  #oob = false
  #busy = false

  constructor(socket: Socket, hooks: MonitorHooks) {
    this.socket = socket
    this.#hooks = hooks
    socket.setEncoding('utf8')
    socket.on('data', (chunk) => {
      this.#waiting.push(...this.#stream.push(String(chunk)))
      void this.work()
    })
    const { qmp } = hooks.behaviour()
    if (qmp === 'garbage') socket.write('\x00\xff no QMP here\r\n')
    else if (qmp !== 'silent') this.send({ QMP: { version, capabilities: ['oob'] } })
  }

  send(message: Json): void {
    this.socket.write(`${JSON.stringify(message)}\r\n`)
  }

  event(message: Json): void {
    if (this.#negotiated && !this.#deaf()) this.send(message)
  }

  /** Works off what was sent; what a mute QEMU was sent waits until it speaks again. */
  async work(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    try {
      while (this.#waiting.length > 0 && !this.#deaf()) {
        const { answerAfterMs = 0 } = this.#hooks.behaviour()
        if (answerAfterMs > 0) await pause(answerAfterMs)
        const text = this.#waiting.shift()
        if (text !== undefined && !this.socket.destroyed) this.#answer(text)
      }
    } finally {
      this.#busy = false
    }
  }

  #deaf(): boolean {
    const { qmp } = this.#hooks.behaviour()
    return qmp === 'mute' || qmp === 'silent'
  }

  #answer(text: string): void {
    let id: unknown
    try {
      const request = requestOf(text)
      id = request.id
      const value = this.#execute(request.name, request.args, request.oob)
      if (value !== undefined) this.send({ return: value, ...(id !== undefined && { id }) })
    } catch (error) {
      if (!(error instanceof QmpError)) throw error
      id ??= (error as { id?: unknown }).id
      this.send({ ...(id !== undefined && { id }), error: { class: error.class, desc: error.message } })
    }
  }

  /** What to return; undefined where there is no answer. */
  #execute(name: string, args: Json, oob: boolean): unknown {
    const { crashOn = [], closeOn = [] } = this.#hooks.behaviour()
    this.#hooks.note(name)
    if (crashOn.includes(name)) this.#hooks.crash()
    if (closeOn.includes(name)) {
      this.socket.destroy()
      return undefined
    }
    if (name === 'qmp_capabilities') return this.#negotiate(args)
    if (!this.#negotiated)
      throw new QmpError('CommandNotFound', "Expecting capabilities negotiation with 'qmp_capabilities'")
    if (oob && !this.#oob) throw new QmpError('GenericError', "QMP input member 'exec-oob' is unexpected")
    if (oob && Object.hasOwn(commands, name))
      throw new QmpError('GenericError', `The command ${name} does not support OOB`)
    return runCommand(name, args, this.#hooks.context)
  }

  #negotiate(args: Json): object {
    if (this.#negotiated)
      throw new QmpError('CommandNotFound', 'Capabilities negotiation is already complete, command ignored')
    this.#oob = Array.isArray(args['enable']) && args['enable'].includes('oob')
    this.#negotiated = true
    return {}
  }
}

/** QEMU's monitor on a socket: one client at a time, others wait unanswered until it leaves. */
export class Monitor {
  readonly #hooks: MonitorHooks
  readonly #queue: Socket[] = []
  #client: Client | undefined
  #server: Server | undefined

  constructor(hooks: MonitorHooks) {
    this.#hooks = hooks
  }

  /** Takes the place of a socket file that an earlier QEMU left, as QEMU does. */
  async listen(path: string): Promise<void> {
    const { qmp } = this.#hooks.behaviour()
    if (qmp === 'absent') return
    await rm(path, { force: true })
    const server = createServer((socket) => this.#accept(socket))
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    if (qmp !== 'refusing') return
    // Closing removes the file by the name it was bound to.
    renameSync(path, `${path}.kept`)
    await new Promise((resolve) => server.close(resolve))
    renameSync(`${path}.kept`, path)
  }

  emit(event: string, data?: Json): void {
    const now = Date.now()
    const timestamp = { seconds: Math.floor(now / 1000), microseconds: (now % 1000) * 1000 }
    this.#client?.event({ timestamp, event, ...(data && { data }) })
  }

  /** The behaviour has changed: what waited may go on. */
  wake(): void {
    void this.#client?.work()
  }

  drop(): void {
    this.#client?.socket.destroy()
  }

  /** Sends what is still to be sent, then closes. */
  async close(): Promise<void> {
    this.#server?.close()
    for (const socket of this.#queue) socket.destroy()
    const socket = this.#client?.socket
    if (socket && !socket.destroyed) await new Promise<void>((resolve) => socket.end(resolve))
  }

  #accept(socket: Socket): void {
    socket.on('error', () => socket.destroy())
    socket.once('close', () => this.#left(socket))
    this.#queue.push(socket)
    this.#serveNext()
  }

  #left(socket: Socket): void {
    const at = this.#queue.indexOf(socket)
    if (at >= 0) this.#queue.splice(at, 1)
    if (this.#client?.socket !== socket) return
    this.#client = undefined
    this.#serveNext()
  }

  #serveNext(): void {
    if (this.#client) return
    const socket = this.#queue.shift()
    if (socket) this.#client = new Client(socket, this.#hooks)
  }
}

import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

export type Json = Readonly<Record<string, unknown>>

const deadlineMs = 40_000

async function dial(path: string, deadline: number): Promise<Socket> {
  for (;;) {
    try {
      return await new Promise((resolve, reject) => {
        const socket = connect(path, () => resolve(socket))
        socket.once('error', reject)
      })
    } catch (error) {
      if (Date.now() > deadline) throw error
      await pause(20)
    }
  }
}

/** A client of a monitor that hides nothing: every message as it came, in order. Closed by the test. */
export class RawQmp {
  readonly #socket: Socket
  readonly #messages: Json[] = []
  #text = ''
  #closed = false
  #wake: () => void = () => {}

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (chunk) => {
      const lines = (this.#text + chunk).split('\r\n')
      this.#text = lines.pop() ?? ''
      this.#messages.push(...lines.map((line) => JSON.parse(line) as Json))
      this.#wake()
    })
    socket.on('error', () => {})
    socket.once('close', () => {
      this.#closed = true
      this.#wake()
    })
  }

  /** Waits for the socket to be there. */
  static async connect(path: string): Promise<RawQmp> {
    return new RawQmp(await dial(path, Date.now() + deadlineMs))
  }

  /** Connects, is greeted and negotiates with out-of-band execution. */
  static async open(path: string): Promise<RawQmp> {
    const client = await RawQmp.connect(path)
    await client.next((message) => 'QMP' in message)
    await client.ask('qmp_capabilities', { enable: ['oob'] })
    return client
  }

  get heard(): boolean {
    return this.#messages.length > 0
  }

  write(text: string): void {
    this.#socket.write(text)
  }

  /** Takes out the first message that fits, and waits for it. @throws Error where none comes or the peer closes */
  async next(fits: (message: Json) => boolean): Promise<Json> {
    const deadline = Date.now() + deadlineMs
    for (;;) {
      const at = this.#messages.findIndex(fits)
      if (at >= 0) return this.#messages.splice(at, 1)[0] as Json
      if (this.#closed) throw new Error('the monitor closed the connection')
      await this.#something(deadline)
    }
  }

  event(name: string, fits: (data: Json) => boolean = () => true): Promise<Json> {
    return this.next(({ event, data = {} }) => event === name && fits(data as Json))
  }

  /** The answer to a command: with `return` or `error`, without its id. */
  async ask(command: string, args?: Json): Promise<Json> {
    const id = `${command}-${Math.random()}`
    this.write(JSON.stringify({ execute: command, ...(args && { arguments: args }), id }))
    const { id: _, ...answer } = await this.next((message) => message['id'] === id)
    return answer
  }

  async status(): Promise<unknown> {
    return ((await this.ask('query-status'))['return'] as Json)['status']
  }

  /** A line of the human monitor. */
  human(line: string): Promise<Json> {
    return this.ask('human-monitor-command', { 'command-line': line })
  }

  /** Resolves when the monitor has closed the connection. */
  async closed(): Promise<void> {
    const deadline = Date.now() + deadlineMs
    while (!this.#closed) await this.#something(deadline)
  }

  close(): void {
    this.#socket.destroy()
  }

  async #something(deadline: number): Promise<void> {
    const left = deadline - Date.now()
    if (left <= 0) throw new Error(`nothing came; waiting: ${JSON.stringify(this.#messages)}`)
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      timer = setTimeout(resolve, left)
    })
    clearTimeout(timer)
  }
}

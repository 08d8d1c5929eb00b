import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/**
 * pass: as if it were not there. deaf: requests arrive, answers are lost. hold: what comes at first waits until it passes
 * again, whatever has become of who sent it; what comes later is lost, so that nobody can call it back. hole: nothing
 * passes, nothing is told. cut: connections break, new ones too.
 */
export type ProxyMode = 'pass' | 'deaf' | 'hold' | 'hole' | 'cut'

/** How long `hold` holds what comes. */
const holdMs = 300

/** A TCP connection to `port` of loopback that can be broken in the ways networks and stopped processes break it. */
export class TcpProxy {
  readonly port: number
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #held: (() => void)[] = []
  #mode: ProxyMode = 'pass'
  #holdUntil = 0

  private constructor(server: Server, port: number) {
    this.#server = server
    this.port = port
  }

  static async to(port: number): Promise<TcpProxy> {
    const server = createServer({ allowHalfOpen: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new TcpProxy(server, (server.address() as { port: number }).port)
    server.on('connection', (client: Socket) => proxy.#join(client, port))
    return proxy
  }

  set mode(mode: ProxyMode) {
    this.#mode = mode
    this.#holdUntil = performance.now() + holdMs
    if (mode === 'cut') for (const socket of this.#sockets) socket.destroy()
    if (mode !== 'pass') return
    const held = this.#held
    this.#held = []
    for (const send of held) send()
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await once(this.#server.close(), 'close')
  }

  #join(client: Socket, port: number): void {
    if (this.#mode === 'cut') {
      client.destroy()
      return
    }
    const server = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
    }
    client.on('data', (data) => {
      const send = () => server.write(data)
      if (this.#mode === 'pass' || this.#mode === 'deaf') send()
      else if (this.#mode === 'hold' && performance.now() < this.#holdUntil) this.#held.push(send)
    })
    client.on('close', () => {
      if (this.#mode === 'pass' || this.#mode === 'deaf') server.end()
    })
    client.on('end', () => client.end())
    server.on('data', (data) => {
      if (this.#mode === 'pass') client.write(data)
    })
    server.on('close', () => client.destroy())
  }
}

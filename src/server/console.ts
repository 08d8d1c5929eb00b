import { connect, type Socket } from 'node:net'
import { WebSocket } from 'ws'

/** What a client that joins is shown of what came before. */
const replayBytes = 64 * 1024
/** A client that has this much unread is cut: a console is no archive. */
const maxBehindBytes = 1 << 20

/** Input that QEMU has not taken yet; a client that sends on is cut. */
const maxUnreadInputBytes = 256 * 1024

interface Channel {
  readonly socket: Socket
  readonly clients: Set<WebSocket>
  replay: Buffer
}

/** Serial consoles: QEMU's socket takes one reader, so one connection a machine is shared by every client. */
export class Consoles {
  readonly #channels = new Map<string, Channel>()

  /** Joins a client to the console behind a Unix socket. */
  attach(path: string, client: WebSocket): void {
    const channel = this.#channels.get(path) ?? this.#open(path)
    channel.clients.add(client)
    if (channel.replay.length > 0) client.send(channel.replay)
    client.on('message', (data: Buffer) => {
      if (channel.socket.writableLength > maxUnreadInputBytes)
        client.close(1013, 'the machine reads too slowly')
      else channel.socket.write(data)
    })
    client.on('error', () => client.terminate())
    client.on('close', () => this.#leave(path, channel, client))
  }

  close(): void {
    for (const { socket, clients } of this.#channels.values()) {
      // Said before the socket closes, which would look as if the machine had ended.
      for (const client of clients) client.close(1001, 'the server stops')
      socket.destroy()
    }
  }

  #open(path: string): Channel {
    const channel: Channel = { socket: connect(path), clients: new Set(), replay: Buffer.alloc(0) }
    this.#channels.set(path, channel)
    channel.socket.on('data', (chunk: Buffer) => {
      const whole = Buffer.concat([channel.replay, chunk])
      channel.replay = whole.subarray(Math.max(0, whole.length - replayBytes))
      for (const client of channel.clients) {
        if (client.bufferedAmount > maxBehindBytes) client.close(1013, 'too slow')
        else if (client.readyState === WebSocket.OPEN) client.send(chunk)
      }
    })
    let why = 'the machine ended'
    channel.socket.on('error', (error) => {
      why = `the console can't be reached: ${error.message}`.slice(0, 120)
    })
    channel.socket.on('close', () => {
      if (this.#channels.get(path) === channel) this.#channels.delete(path)
      for (const client of channel.clients) client.close(why === 'the machine ended' ? 1000 : 1011, why)
    })
    return channel
  }

  #leave(path: string, channel: Channel, client: WebSocket): void {
    channel.clients.delete(client)
    if (channel.clients.size > 0) return
    if (this.#channels.get(path) === channel) this.#channels.delete(path)
    channel.socket.end()
  }
}

import { closeSync, openSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Detached } from '../../host/exec.ts'
import { startWithin } from './processes.ts'

/**
 * Runs in the network of a host: passes on to its API what connects to a Unix socket, which all networks of the machine
 * reach. argv: the path of the socket, the port of the API.
 */
const relay = `const { connect, createServer } = require('node:net')
const [path, port] = process.argv.slice(1)
createServer((outer) => {
  const inner = connect(Number(port), '127.0.0.1')
  for (const [one, other] of [[outer, inner], [inner, outer]]) {
    one.on('error', () => other.destroy()).on('close', () => other.destroy()).pipe(other)
  }
}).listen(path)`

function passOn(one: Socket, other: Socket): void {
  one.on('error', () => other.destroy())
  one.on('close', () => other.destroy())
  one.pipe(other)
}

/** A port of loopback, outside of a host's network, that leads to its API whatever becomes of that network. */
export class Door {
  readonly port: number
  readonly #server: Server
  readonly #relay: Detached

  private constructor(port: number, server: Server, relay: Detached) {
    this.port = port
    this.#server = server
    this.#relay = relay
  }

  /** @param folder of the host; where the socket and the relay's log are */
  static async open(namespace: string, folder: string, apiPort: number): Promise<Door> {
    const path = join(folder, 'door')
    const output = openSync(join(folder, 'door.log'), 'a', 0o600)
    const argv = [process.execPath, '-e', relay, path, String(apiPort)]
    const program = await startWithin(namespace, argv, output).finally(() => closeSync(output))
    const server = createServer((outer) => {
      const inner = connect(path)
      passOn(outer, inner)
      passOn(inner, outer)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    const address = server.address()
    return new Door(typeof address === 'object' && address ? address.port : 0, server, program)
  }

  close(): void {
    this.#server.close()
    this.#relay.kill()
  }
}

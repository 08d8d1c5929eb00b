import type { WebSocket } from 'ws'
import type { Clock } from '../lib/clock.ts'

/** How often a client is asked whether it is there, ms. */
export const heartbeatMs = 30_000

/**
 * Lets go of a WebSocket client that is gone without a word: a laptop that was closed would hold its console for ever. Each
 * client answers pings by itself (RFC 6455 section 5.5.2); one that was not heard of between two of them is cut, unless it
 * is us who do not read from it.
 */
export function keepAlive(client: WebSocket, clock: Clock): void {
  let heard = true
  let cancel = () => {}
  const hear = () => {
    heard = true
  }
  const look = () => {
    if (!heard && !client.isPaused) return client.terminate()
    heard = false
    client.ping()
    cancel = clock.after(heartbeatMs, look)
  }
  cancel = clock.after(heartbeatMs, look)
  client.on('pong', hear).on('message', hear)
  client.once('close', () => cancel())
}

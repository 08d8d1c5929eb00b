import { connect } from 'node:net'
import { WebSocket } from 'ws'

/** Bytes on their way to a client, or to QEMU, above which the other side is not read from. */
const maxUnsentBytes = 1 << 20

/**
 * Subprotocols a VNC client may ask for, best first: KubeVirt's plain bytes, Kubernetes' binary channel of old, and the
 * one of noVNC. All of them mean binary messages with the bytes of RFC 6143.
 */
const protocols = ['plain.kubevirt.io', 'binary.k8s.io', 'binary']

/** The subprotocol to answer with; false, which is none, where none that is known was asked for. */
export function vncProtocol(offered: ReadonlySet<string>): string | false {
  return protocols.find((one) => offered.has(one)) ?? false
}

/**
 * Joins a client to the VNC server behind a Unix socket, which gives each its own connection. What one side sends is
 * read only as fast as the other takes it.
 */
export function joinVnc(path: string, client: WebSocket): void {
  const display = connect(path)
  let why = 'the machine ended'
  display.on('error', (error: NodeJS.ErrnoException) => {
    why = error.code === 'ENOENT' ? 'VNC was off when the machine started: restart it' : error.message
  })
  display.on('data', (chunk: Buffer) => {
    if (client.readyState !== WebSocket.OPEN) return
    client.send(chunk, () => client.bufferedAmount < maxUnsentBytes && display.resume())
    if (client.bufferedAmount >= maxUnsentBytes) display.pause()
  })
  display.on('close', () => client.close(why === 'the machine ended' ? 1000 : 1011, why.slice(0, 120)))
  client.on('message', (data: Buffer) => {
    if (!display.write(data) && display.writableLength >= maxUnsentBytes) client.pause()
  })
  display.on('drain', () => client.resume())
  client.on('error', () => client.terminate())
  client.on('close', () => display.destroy())
}

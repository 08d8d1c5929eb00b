import { once } from 'node:events'
import { connect } from 'node:net'
import { type Control, controlName } from './qemu/script.ts'

/** Tells a running fake QEMU what to do; resolves when it has heard, or has ended of it. */
export async function tellFake(pid: number, command: Control): Promise<void> {
  const socket = connect({ path: controlName(pid) })
  await once(socket, 'connect')
  socket.write(`${JSON.stringify(command)}\n`)
  await new Promise<void>((resolve, reject) => {
    socket.once('data', () => resolve())
    socket.once('close', () => resolve())
    socket.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'ECONNRESET' || error.code === 'EPIPE' ? resolve() : reject(error),
    )
  })
  socket.destroy()
}

import { connect, type Server, type Socket } from 'node:net'

/**
 * A program that runs in the network of a host and passes on to its API what connects to listeners outside of it:
 * a listener stays in the network that it was made in, whoever holds it. argv: the port of the API.
 */
const port = Number(process.argv[2])

function pass(outer: Socket): void {
  const inner = connect(port, '127.0.0.1')
  for (const [one, other] of [
    [outer, inner],
    [inner, outer],
  ] as const) {
    one.on('error', () => other.destroy())
    one.on('close', () => other.destroy())
    one.pipe(other)
  }
}

process.on('message', (_word, handle) => {
  ;(handle as Server).on('connection', pass)
  process.send?.('listening')
})
process.on('disconnect', () => process.exit(0))

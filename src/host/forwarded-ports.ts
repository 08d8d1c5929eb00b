import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import type { VmSpec } from '../resources/vm.ts'

function bindTcp(port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve()))
  })
}

function bindUdp(port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4')
    socket.once('error', reject)
    socket.bind({ port, address, exclusive: true }, () => socket.close(() => resolve()))
  })
}

function why(error: unknown): string {
  const code = errnoOf(error)
  if (code === 'EADDRINUSE') return 'is in use'
  if (code === 'EACCES') return "can't be used: ports below 1024 need root"
  if (code === 'EADDRNOTAVAIL') return "can't be used: this host has no such address"
  return `can't be used: ${code ?? messageOf(error)}`
}

const everywhere = '0.0.0.0'

/** @throws PlasmaError `PortTaken` where two forwards of a machine want one port */
function requireDifferentPorts(spec: VmSpec): void {
  const all = spec.networks.flatMap(({ user }, i) =>
    (user?.forwards ?? []).map((f, j) => ({
      ...f,
      field: `spec.networks[${i}].user.forwards[${j}].hostPort`,
    })),
  )
  for (const [index, f] of all.entries()) {
    const first = all.slice(0, index).find((other) => {
      const overlap = [f.hostAddress, everywhere].includes(other.hostAddress) || f.hostAddress === everywhere
      return overlap && other.hostPort === f.hostPort && other.protocol === f.protocol
    })
    if (!first) continue
    const where = `${f.protocol} port ${f.hostPort} of ${f.hostAddress}`
    throw new PlasmaError('PortTaken', `${f.field}: ${where} is ${first.field} too`, {
      hint: 'choose another hostPort',
    })
  }
}

/**
 * Checks that every forwarded port of this host can be bound now. QEMU would say so too, but after the fork and
 * without naming the field.
 * @throws PlasmaError `PortTaken` naming `spec.networks[i].user.forwards[j].hostPort`
 */
export async function checkForwardedPorts(spec: VmSpec): Promise<void> {
  requireDifferentPorts(spec)
  for (const [i, network] of spec.networks.entries()) {
    for (const [j, { protocol, hostAddress, hostPort }] of (network.user?.forwards ?? []).entries()) {
      const bind = protocol === 'tcp' ? bindTcp : bindUdp
      await bind(hostPort, hostAddress).catch((error: unknown) => {
        const field = `spec.networks[${i}].user.forwards[${j}].hostPort`
        const where = `${protocol} port ${hostPort} of ${hostAddress}`
        throw new PlasmaError('PortTaken', `${field}: ${where} ${why(error)}`, {
          hint: 'choose another hostPort, or stop what listens there',
          cause: error,
        })
      })
    }
  }
}

import { isIPv4, isIPv6 } from 'node:net'
import { z } from 'zod'

/** The port that IANA gave to NBD. */
const defaultPort = 10_809

export const nbd = z.object({
  host: z
    .string()
    .max(253)
    .regex(
      /^[0-9A-Za-z:]([-0-9A-Za-z._:]*[0-9A-Za-z.:])?$/,
      'must be a host name, an IPv4 address, or an IPv6 address without brackets and zone',
    )
    .describe('The server: a name or an address, the same from every host that may run the machine.'),
  port: z.int().min(1).max(65_535).default(defaultPort).describe('TCP port of the server.'),
  exportName: z
    .string()
    .max(1024)
    .regex(/^\P{Cc}*$/u, 'must have no control characters')
    .default('')
    .describe("Name of the export; empty for the server's default one."),
})
export type Nbd = z.output<typeof nbd>

/** A last label that reads as a number, also as inet_aton(3) does, is the end of an IPv4 address. */
const numericEnd = /(^|\.)(0[xX][0-9A-Fa-f]*|[0-9]+)\.?$/
/** An IPv4 address in IPv6 form, as its last 32 bits in the normal form that URL gives. */
const mappedIpv4 = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/

/** IPv6 in its one short form (RFC 5952). */
function shortIpv6(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1)
}

/** Whether `host` is what it looks like: what has a colon or ends in a number must be an address in full. */
export function isNbdHost(host: string): boolean {
  if (host.includes(':')) return isIPv6(host) && !mappedIpv4.test(shortIpv6(host))
  if (numericEnd.test(host)) return isIPv4(host)
  return host.split('.').every((label, i, all) => label !== '' || (i > 0 && i === all.length - 1))
}

const loopbackNames = /^(localhost|localhost\.localdomain|ip6-localhost|ip6-loopback|.*\.localhost)$/

function plainHost(host: string): string {
  const lower = host.toLowerCase().replace(/\.$/, '')
  return isIPv6(lower) ? shortIpv6(lower) : lower
}

/** Whether an address leads to the host that asks: a loopback one, or the unspecified one. */
export function isLoopback(host: string): boolean {
  const plain = plainHost(host)
  if (isIPv4(plain)) return plain.startsWith('127.') || plain === '0.0.0.0'
  return plain === '::1' || plain === '::' || loopbackNames.test(plain)
}

const inBrackets = (host: string) => (host.includes(':') ? `[${host}]` : host)

/** An export for people: `nbd://host:port/exportName`, the name as it is. */
export function nbdUrl({ host, port, exportName }: Nbd): string {
  return `nbd://${inBrackets(host)}:${port}/${exportName}`
}

/**
 * An export as two machines are found to name the same: `host:port/exportName`, the host in lower case and addresses in
 * one form. The ways to say "this host" count as one, 127.0.0.1; names and addresses of one server can't be told to be.
 */
export function exportKey({ host, port, exportName }: Nbd): string {
  const plain = plainHost(host)
  const same = isLoopback(plain) && !/^127\.(?!0\.0\.1$)/.test(plain) ? '127.0.0.1' : plain
  return `${inBrackets(same)}:${port}/${exportName}`
}

/** The exports that a machine with these disks writes to, as `exportKey` has them, with the field of each. */
export function writableExports(
  disks: readonly { readonly nbd?: Nbd | undefined; readonly readOnly: boolean }[],
): readonly { readonly key: string; readonly field: string }[] {
  return disks.flatMap(({ nbd: from, readOnly }, index) =>
    from && !readOnly ? [{ key: exportKey(from), field: `spec.disks[${index}].nbd` }] : [],
  )
}

import { createSocket } from 'node:dgram'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'

type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>

/** A Host lists no more than this; a host with hundreds of bridges would fill the store with them. */
const most = 16
const askMs = 1_000

/** Addresses by which others may reach this host: no loopback, and no IPv6 address that only its own link knows. */
export function usableAddresses(interfaces: Interfaces): string[] {
  const usable = Object.values(interfaces)
    .flatMap((some) => some ?? [])
    .filter(
      ({ internal, family, address }) => !internal && !(family === 'IPv6' && /^fe[89ab]/i.test(address)),
    )
  const four = usable.filter(({ family }) => family === 'IPv4')
  const six = usable.filter(({ family }) => family === 'IPv6')
  return [...new Set([...four, ...six].map(({ address }) => address))]
}

const isLoopback = (address: string): boolean => address === '::1' || address.startsWith('127.')

/**
 * Our address on the way to another host, as the kernel routes it; nothing is sent.
 * @returns undefined where there is no way, or its name is not known
 */
export function addressTowards(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    const end = (address?: string) => {
      clearTimeout(timer)
      socket.removeAllListeners()
      // Of a name that is still being looked up, an answer may come yet.
      socket.on('error', () => {})
      socket.close()
      resolve(address)
    }
    const timer = setTimeout(end, askMs)
    socket.once('error', () => end())
    socket.connect(port, host, () => end(socket.address().address))
  })
}

/**
 * This host's addresses, asked anew only when its interfaces change; the one on the way to the store first.
 * @param store the store's members; none for one that is on this host
 */
export class HostAddresses {
  readonly #store: readonly { readonly host: string; readonly port: number }[]
  readonly #interfaces: () => Interfaces
  readonly #towards: typeof addressTowards
  #known: { readonly key: string; readonly addresses: readonly string[] } | undefined

  constructor(
    store: readonly { readonly host: string; readonly port: number }[] = [],
    interfaces: () => Interfaces = networkInterfaces,
    towards = addressTowards,
  ) {
    this.#towards = towards
    this.#store = store
    this.#interfaces = interfaces
  }

  /** @param urls of the store's members */
  static towards(urls: readonly string[]): HostAddresses {
    const members = urls.map((text) => new URL(text))
    return new HostAddresses(
      members.map(({ hostname, port }) => ({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) })),
    )
  }

  /** At most 16. Never rejects. */
  async find(): Promise<readonly string[]> {
    const all = this.#listed()
    const key = all?.join(' ')
    if (key !== undefined && this.#known?.key === key) return this.#known.addresses
    const ways = await Promise.all(this.#store.map(({ host, port }) => this.#towards(host, port)))
    const isOurs = (address: string) => all?.includes(address) ?? !isLoopback(address)
    const first = ways.filter((address) => address !== undefined && isOurs(address)) as string[]
    const addresses = [...new Set([...first, ...(all ?? [])])].slice(0, most)
    if (key !== undefined) this.#known = { key, addresses }
    return addresses
  }

  /** Undefined where they can't be listed, as in a sandbox without AF_NETLINK: the way to the store tells enough. */
  #listed(): readonly string[] | undefined {
    try {
      return usableAddresses(this.#interfaces())
    } catch {
      return undefined
    }
  }
}

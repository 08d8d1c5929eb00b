import type { Log } from '../lib/log.ts'
import type { HostAddresses } from './addresses.ts'
import { formatPeer } from './peers.ts'

type Address = Parameters<typeof formatPeer>[0]

export interface GuardPeerOptions {
  /** What was said with --peer-address. */
  readonly said: Address | undefined
  /** Where the guard listens, with the port that it got. */
  readonly listen: Address
  readonly addresses: Pick<HostAddresses, 'find'>
  readonly log: Log
}

/** Where other hosts reach the guard of this one. */
export class GuardPeer {
  readonly #options: GuardPeerOptions
  #warned = false

  constructor(options: GuardPeerOptions) {
    this.#options = options
  }

  /**
   * What was said, or where it listens; where it listens everywhere, the first address of this host that it hears, those
   * on the way to the store before others. Loopback where there is none, with one warning. Never rejects.
   * @returns `host:port`
   */
  async find(): Promise<string> {
    const { said, listen, addresses, log } = this.#options
    const everywhere = listen.host === '0.0.0.0' || listen.host === '::'
    if (said) return formatPeer(said)
    if (!everywhere) return formatPeer(listen)
    const all = await addresses.find()
    // One that listens to IPv6 hears both.
    const heard = all.find((address) => listen.host === '::' || !address.includes(':'))
    if (heard !== undefined) return formatPeer({ host: heard, port: listen.port })
    if (!this.#warned) {
      this.#warned = true
      log.warn('other hosts are told a loopback address of this guard, by which they do not reach it', {
        addresses: all,
        hint: 'this host has no other address that --peer-listen covers: name one with --peer-address',
      })
    }
    return formatPeer({ host: listen.host === '::' ? '::1' : '127.0.0.1', port: listen.port })
  }
}

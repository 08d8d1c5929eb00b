import { isIPv6 } from 'node:net'

/** Attempts that may fail in a row unless told, and how long until another one may. */
const defaultBurst = 20
const refillMs = 1_000

/** Keys that are told apart at one address; those beyond share one count. */
const mostKeys = 64
/** Addresses remembered; the one that failed longest ago goes first. */
const mostAddresses = 8_192

/** Failed attempts that are not forgiven yet: `spent` at the time `at`, one less for each `refillMs` since. */
interface Count {
  spent: number
  at: number
}

type Keys = Map<string, Count>

/** Whoever has one IPv6 address has 2^64 of them (RFC 6177); an IPv4 address inside IPv6 is that IPv4 address. */
function networkOf(address: string): string {
  const [plain = ''] = address.replace(/^::ffff:(?=\d+\.)/i, '').split('%')
  if (!isIPv6(plain)) return plain
  const [head = '', tail] = plain.split('::')
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  while (tail !== undefined && groups.length + rest.length < 8) groups.push('0')
  return [...groups, ...rest].slice(0, 4).join(':')
}

/**
 * Failed attempts by access key and address: so many in a row, then one a second. Both are counted together, so that a flood
 * of bad signatures with somebody's key id holds up nobody at other addresses. Memory is bounded, and naming many keys
 * does not push out the count of one. Times are wall milliseconds; one that goes back forgives nothing.
 */
export class FailedAttempts {
  readonly #addresses = new Map<string, Keys>()
  readonly #burst: number

  /** @param burst how many may fail in a row */
  constructor(burst = defaultBurst) {
    this.#burst = burst
  }

  /** How long, in milliseconds, no attempt with this key is looked at from this address; 0 where it is now. */
  waitMs(address: string, accessKeyId: string, now: number): number {
    const keys = this.#addresses.get(networkOf(address))
    const count = keys && (keys.get(accessKeyId) ?? (keys.size >= mostKeys ? keys.get('') : undefined))
    if (!count) return 0
    forgive(count, now)
    return count.spent < this.#burst ? 0 : count.at + refillMs - now
  }

  /** Counts an attempt that failed. */
  failed(address: string, accessKeyId: string, now: number): void {
    const network = networkOf(address)
    const keys = this.#addresses.get(network) ?? new Map<string, Count>()
    this.#addresses.delete(network)
    if (this.#addresses.size >= mostAddresses)
      this.#addresses.delete(this.#addresses.keys().next().value ?? '')
    this.#addresses.set(network, keys)
    const count = this.#countOf(keys, accessKeyId, now)
    forgive(count, now)
    count.spent += 1
  }

  #countOf(keys: Keys, accessKeyId: string, now: number): Count {
    const known = keys.get(accessKeyId)
    if (known) return known
    if (keys.size >= mostKeys) forget(keys, now)
    const name = keys.size >= mostKeys ? '' : accessKeyId
    const count = keys.get(name) ?? { spent: 0, at: now }
    keys.set(name, count)
    return count
  }
}

/** Where the clock went back nothing is forgiven, and time counts from there. */
function forgive(count: Count, now: number): void {
  const whole = Math.floor((now - count.at) / refillMs)
  if (whole >= 0 && whole < count.spent) {
    count.spent -= whole
    count.at += whole * refillMs
    return
  }
  if (whole >= 0) count.spent = 0
  count.at = now
}

/** Lets go of the keys whose failures are all forgiven. */
function forget(keys: Keys, now: number): void {
  for (const [name, count] of keys) {
    forgive(count, now)
    if (count.spent === 0) keys.delete(name)
  }
}

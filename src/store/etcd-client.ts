import type { Duplex } from 'node:stream'
import {
  Etcd3,
  type ICompare,
  type IEvent,
  type IKeyValue,
  type IOptions,
  type IRangeRequest,
  type IRangeResponse,
  type IRequestOp,
  type IResponseHeader,
  type ITxnResponse,
  type IWatchRequest,
  type IWatchResponse,
} from 'etcd3'
import type { Clock } from '../lib/clock.ts'
import { EtcdFailure, type FailureKind, failureOf } from './etcd-errors.ts'

export type {
  ICompare,
  IEvent,
  IKeyValue,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseHeader,
  ITxnResponse,
  IWatchResponse,
}

/** By what right we are let in; PEM texts. */
export interface EtcdCredentials {
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer }
  readonly auth?: { readonly username: string; readonly password: string }
}

export interface EtcdAccess extends EtcdCredentials {
  /** What counts by now, asked for after a call that failed: the same object as long as nothing has changed. @throws Error */
  readonly credentials?: () => EtcdCredentials
  /** Between two pings of a connection, milliseconds; etcd tolerates one in 5 s. */
  readonly keepaliveMs?: number
}

/** A watch as etcd sends it, one message at a time: nothing is fetched that is not read. */
export interface EtcdStream {
  readonly messages: AsyncIterator<IWatchResponse>
  send(request: IWatchRequest): void
  close(): void
}

/** An answer may hold a batch of a watch, or a page of a list. Bytes. */
const maxAnswerBytes = 64 * 1024 * 1024
/** Between two looks for other credentials while calls fail, ms. */
const lookAgainMs = 1_000
/** More than a deadline's worth: the deadline of gRPC goes first, this is for what hangs before the call. */
const graceMs = 250

const channel = {
  'grpc.max_receive_message_length': maxAnswerBytes,
  'grpc.max_send_message_length': -1,
  // What is open but dead is closed after both.
  'grpc.keepalive_time_ms': 6_000,
  'grpc.keepalive_timeout_ms': 3_000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.enable_http_proxy': 0,
  'grpc.enable_channelz': 0,
}

/** Trying again is decided by who knows what is safe to repeat, so the client must never do so by itself. */
const never = { execute: async (work: (context: object) => unknown) => work({}) }

/** Asks etcd to end a watch on a member that has lost its leader: such a one would stay silent for ever. */
const requireLeader = (options: unknown, nextCall: (options: unknown) => Call): Call => {
  const call = nextCall(options)
  const start = call.start.bind(call)
  call.start = (metadata, listener) => {
    metadata.set('hasleader', 'true')
    start(metadata, listener)
  }
  return call
}

interface Call {
  start(metadata: { set(key: string, value: string): void }, listener: unknown): void
}

/** One endpoint of etcd. Every call has a deadline and fails with an EtcdFailure; none is ever repeated. */
export class EtcdClient {
  readonly endpoint: string
  readonly #clock: Clock
  readonly #access: EtcdAccess
  #credentials: EtcdCredentials
  #lookedAt = Number.NEGATIVE_INFINITY
  #options: IOptions
  #etcd: Etcd3
  #closed = false

  constructor(endpoint: string, access: EtcdAccess, clock: Clock) {
    this.endpoint = endpoint
    this.#clock = clock
    this.#access = access
    this.#credentials = access.credentials?.() ?? access
    this.#options = optionsOf(endpoint, { ...access, ...this.#credentials })
    this.#etcd = new Etcd3(this.#options)
  }

  range(request: IRangeRequest, timeoutMs: number): Promise<IRangeResponse> {
    return this.#call(timeoutMs, (etcd, options) => etcd.kv.range(request, options))
  }

  txn(
    request: { compare: ICompare[]; success: IRequestOp[]; failure: IRequestOp[] },
    timeoutMs: number,
  ): Promise<ITxnResponse> {
    return this.#call(timeoutMs, (etcd, options) => etcd.kv.txn(request, options))
  }

  /** Forgets the history before a revision. */
  async compact(revision: bigint, timeoutMs: number): Promise<void> {
    await this.#call(timeoutMs, (etcd, options) => etcd.kv.compact({ revision: String(revision) }, options))
  }

  async watch(timeoutMs: number): Promise<EtcdStream> {
    const interceptors = [requireLeader] as never
    const stream = await this.#call(timeoutMs, (etcd) => etcd.watchClient.watch({ interceptors }))
    const duplex = stream as unknown as Duplex & { cancel(): void }
    return {
      messages: duplex[Symbol.asyncIterator](),
      send: (request) => stream.write(request),
      close: () => {
        // Ended first: etcd3 takes a cancelled stream that was not for a lost connection.
        stream.end()
        duplex.cancel()
      },
    }
  }

  /** What a failure means, once what can be done about it by this client is done. */
  #kindFor(kind: FailureKind, failed: Etcd3): FailureKind {
    if (kind === 'token') {
      // Once, however many calls find out at the same time.
      if (failed === this.#etcd) this.renew()
      return kind
    }
    if (kind === 'denied') return this.#readmitted(failed) ? 'token' : kind
    // A certificate that does not count any more ends the connection, or none is made.
    if (kind === 'unsent' || kind === 'unknown') this.#readmitted(failed)
    return kind
  }

  /** Logs in anew at the next call. What is under way goes on. */
  renew(): void {
    if (this.#closed) return
    const old = this.#etcd
    this.#etcd = new Etcd3(this.#options)
    old.close()
  }

  /** Whether there are other credentials than those with which a call has just failed; all that follow use them. */
  #readmitted(failed: Etcd3): boolean {
    const now = this.#clock.elapsed()
    if (failed !== this.#etcd || now - this.#lookedAt < lookAgainMs) return failed !== this.#etcd
    this.#lookedAt = now
    try {
      const credentials = this.#access.credentials?.() ?? this.#credentials
      if (credentials === this.#credentials) return false
      this.#options = optionsOf(this.endpoint, { ...this.#access, ...credentials })
      this.renew()
      this.#credentials = credentials
    } catch {
      // Being rewritten just now: those before count until the new ones can be used.
    }
    return failed !== this.#etcd
  }

  close(): void {
    this.#closed = true
    this.#etcd.close()
  }

  async #call<T>(
    timeoutMs: number,
    work: (etcd: Etcd3, options: { deadline: number }) => Promise<T>,
  ): Promise<T> {
    if (this.#closed) throw new EtcdFailure('unsent', 'the store is closed')
    const etcd = this.#etcd
    let cancel = () => {}
    const late = `no answer within ${Math.round(timeoutMs)} ms`
    const deadline = new Promise<never>((_, reject) => {
      cancel = this.#clock.after(timeoutMs + graceMs, () => reject(new EtcdFailure('unknown', late)))
    })
    try {
      return await Promise.race([work(etcd, { deadline: Date.now() + timeoutMs }), deadline])
    } catch (error) {
      const { kind, message } = failureOf(error)
      const why = /^4 DEADLINE_EXCEEDED/.test(message) ? late : plain(message)
      throw new EtcdFailure(this.#kindFor(kind, etcd), `${this.endpoint}: ${why}`, { cause: error })
    } finally {
      cancel()
    }
  }
}

/** What gRPC says, without its codes and notes. */
function plain(message: string): string {
  return message
    .replace(/^\d+ [A-Z_]+: /, '')
    .replace(/\.? *Resolution note: *$/, '')
    .replace('Last error: Error: ', '')
}

/** Longest wait for a log-in. */
const loginMs = 2_000

function optionsOf(endpoint: string, { tls, auth, keepaliveMs }: EtcdAccess): IOptions {
  const callOptions = () => ({ deadline: Date.now() + loginMs })
  const { ca, cert, key } = tls ?? {}
  // Without a CA of its own, those that Node trusts count.
  const credentials = tls && {
    ...{ rootCertificate: (ca ?? null) as Buffer },
    ...(key && { privateKey: key }),
    ...(cert && { certChain: cert }),
  }
  return {
    hosts: [endpoint],
    grpcOptions: { ...channel, ...(keepaliveMs !== undefined && { 'grpc.keepalive_time_ms': keepaliveMs }) },
    ...(credentials && { credentials }),
    ...(auth && { auth: { ...auth, callOptions } }),
    faultHandling: { host: () => never as never, global: never as never },
  }
}

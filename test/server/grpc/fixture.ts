import { createConnection, type Socket } from 'node:net'
import {
  type ChannelOptions,
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type MethodDefinition,
  type ServiceDefinition,
  type ServiceError,
} from '@grpc/grpc-js'
import { fromJSON } from '@grpc/proto-loader'
import type { AuditRecord } from '../../../src/auth/audit.ts'
import { mastersGroup } from '../../../src/auth/identity.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { Namespace, namespaceNamed } from '../../../src/resources/kinds.ts'
import { type GrpcListener, type ListenOptions, listenGrpc } from '../../../src/server/grpc/listen.ts'
import protocol from '../../../src/server/grpc/vmservice.json' with { type: 'json' }
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of many shapes
export type Message = any

const loading = { keepCase: true, longs: Number, enums: String, defaults: true }
const definition = fromJSON(protocol.messages as Parameters<typeof fromJSON>[0], loading)
const service = definition['plasmavmc.VmService'] as ServiceDefinition

/** What a caller sends to be known; `null` for nobody. */
export interface CallOptions {
  readonly token?: string | null
  readonly deadlineMs?: number
  /** Metadata besides. */
  readonly more?: readonly (readonly [name: string, value: string])[]
}

/** Calls methods of VmService by name, as grpc-js' own clients do. */
export class VmClient {
  readonly #client: Client
  readonly #token: string

  constructor(
    address: string,
    token = 'admin',
    creds = credentials.createInsecure(),
    options: ChannelOptions = {},
  ) {
    this.#client = new Client(address, creds, options)
    this.#token = token
  }

  #method(name: string): MethodDefinition<object, Message> {
    const method = service[name]
    if (!method) throw new Error(`there is no ${name}`)
    return method
  }

  #metadata(token: string | null, more: CallOptions['more'] = []): Metadata {
    const metadata = new Metadata()
    for (const [name, value] of more) metadata.add(name, value)
    if (token !== null) metadata.set('authorization', `Bearer ${token}`)
    return metadata
  }

  call(name: string, request: object = {}, options: CallOptions = {}): Promise<Message> {
    const { path, requestSerialize, responseDeserialize } = this.#method(name)
    const { token = this.#token, deadlineMs = 30_000, more } = options
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        ...([path, requestSerialize, responseDeserialize, request] as const),
        this.#metadata(token, more),
        { deadline: Date.now() + deadlineMs },
        (error, answer) => (error ? reject(error) : resolve(answer)),
      )
    })
  }

  /** How a call fails. @throws Error where it does not */
  async refusal(name: string, request: object = {}, options: CallOptions = {}): Promise<ServiceError> {
    const answer = await this.call(name, request, options).catch((error: unknown) => error as ServiceError)
    if (answer instanceof Error) return answer as ServiceError
    throw new Error(`${name} was done: ${JSON.stringify(answer)}`)
  }

  watch(
    request: object = {},
    token: string | null = this.#token,
    more?: CallOptions['more'],
  ): ClientReadableStream<Message> {
    const { path, requestSerialize, responseDeserialize } = this.#method('WatchVms')
    return this.#client.makeServerStreamRequest(
      ...([path, requestSerialize, responseDeserialize, request] as const),
      this.#metadata(token, more),
    )
  }

  close(): void {
    this.#client.close()
  }
}

export interface GrpcLab {
  readonly listener: GrpcListener
  readonly address: string
  readonly objects: KvObjects
  readonly audits: AuditRecord[]
  readonly client: VmClient
  /** A raw connection. */
  readonly connect: () => Socket
  readonly close: () => Promise<void>
}

/** gRPC on a free port over a store in memory that lets in `admin`, who may do all, and whoever `change` says. */
export async function grpcLab(
  change: Partial<ListenOptions> & { historyLimit?: number } = {},
): Promise<GrpcLab> {
  const { historyLimit = 10_000, ...rest } = change
  const kv = new MemoryKv({ historyLimit })
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const audits: AuditRecord[] = []
  const listener = await listenGrpc({
    ...{ objects, clock: systemClock, log: silentLog, hostName: 'host-1' },
    ...{ host: '127.0.0.1', port: 0, tls: { key: '', cert: '' } },
    audit: (record) => audits.push(record),
    authorize: (identity) => identity.groups.includes(mastersGroup),
    authenticate: ({ headers }) => {
      const { authorization } = headers as { authorization?: string }
      if (authorization === 'Bearer admin')
        return { ok: true, identity: { name: 'admin', groups: [mastersGroup] } }
      if (authorization === 'Bearer guest') return { ok: true, identity: { name: 'guest', groups: [] } }
      return { ok: false, code: 'SignatureDoesNotMatch', message: 'the access key is unknown' }
    },
    ...rest,
  })
  await objects.create(Namespace, namespaceNamed('default'))
  const address = `${listener.address}:${listener.port}`
  const client = new VmClient(address)
  const connect = () => createConnection(listener.port, listener.address)
  const close = async () => {
    client.close()
    await listener.close()
  }
  return { listener, address, objects, audits, client, connect, close }
}

/** The next message of a stream. @throws ServiceError where it ends with one */
export async function next(stream: ClientReadableStream<Message>): Promise<Message> {
  return new Promise((resolve, reject) => {
    const off = () => stream.off('data', take).off('error', fail).off('end', end)
    const take = (message: Message) => {
      stream.pause()
      off()
      resolve(message)
    }
    const fail = (error: unknown) => {
      off()
      reject(error)
    }
    const end = () => fail(new Error('the stream ended'))
    stream.on('data', take).on('error', fail).on('end', end).resume()
  })
}

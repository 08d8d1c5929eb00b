import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  type ServerWritableStream,
  type ServiceDefinition,
} from '@grpc/grpc-js'
import { fromJSON, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader'
import { ReflectionService } from '@grpc/reflection'
import type { Identity } from '../../auth/identity.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { ApiError } from '../../store/errors.ts'
import type { ServerDeps } from '../deps.ts'
import { countRequest, Metrics } from '../metrics.ts'
import { spendAs } from '../seating.ts'
import { statusOf } from '../status.ts'
import { actingAs, auditCall, authenticateCall, authorizeImpersonation, type Caller } from './admission.ts'
import { callStatus, codes } from './codes.ts'
import { defaultGrpcLimits, type GrpcLimits } from './limits.ts'
import { VmCall } from './vm-call.ts'
import { VmService } from './vm-service.ts'
import protocol from './vmservice.json' with { type: 'json' }
import { sendEvents, watchVms } from './watch-vms.ts'

export interface GrpcDeps
  extends Pick<
    ServerDeps,
    'objects' | 'objectsFor' | 'authenticate' | 'authorize' | 'audit' | 'log' | 'clock' | 'metrics' | 'fair'
  > {
  /** Name of the Host of this server. */
  readonly hostName: string
  /** `defaultGrpcLimits` unless told. */
  readonly grpcLimits?: GrpcLimits
}

export interface GrpcServer {
  /** Takes a connection over. */
  inject(socket: Duplex): void
  /** Ends watches, then connections as their calls end; those that are left after the grace are cut. */
  drain(graceMs: number): void
}

/** Whose call it is that some metadata came with. */
type Callers = WeakMap<Metadata, Required<Pick<Caller, 'identity'>> & Caller>

const serviceName = 'plasmavmc.VmService'
const loading = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: false }

/** VmService with reflection (v1 and v1alpha) for connections that are given to it. PEM texts make it speak TLS. */
export function createGrpcServer(
  deps: GrpcDeps,
  tls?: { readonly key: string; readonly cert: string },
): GrpcServer {
  const limits = deps.grpcLimits ?? defaultGrpcLimits
  const callers: Callers = new WeakMap()
  const stopping = new AbortController()
  const definition = fromJSON(protocol.messages as Parameters<typeof fromJSON>[0], loading)
  const server = new Server({ ...options(limits), interceptors: [door(deps, callers, limits)] })
  const handlers = handlersOf(deps, callers, limits, stopping.signal)
  server.addService(definition[serviceName] as ServiceDefinition, handlers)
  new ReflectionService(told(definition), { services: [serviceName] }).addToServer(server)
  const pair = tls && { private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) }
  const credentials = pair ? ServerCredentials.createSsl(null, [pair]) : ServerCredentials.createInsecure()
  const injector = server.createConnectionInjector(credentials)
  return {
    inject: (socket) => injector.injectConnection(socket),
    drain: (graceMs) => {
      stopping.abort()
      injector.drain(graceMs)
    },
  }
}

/** What reflection tells: not what protobufjs makes of its messages, which other clients than its own can't read. */
function told(definition: PackageDefinition): PackageDefinition {
  const message = definition['plasmavmc.Vm'] as MessageTypeDefinition
  return { 'plasmavmc.Vm': { ...message, fileDescriptorProtos: [Buffer.from(protocol.file, 'base64')] } }
}

function options(limits: GrpcLimits) {
  return {
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.max_send_message_length': limits.answerBytes,
    'grpc.max_concurrent_streams': limits.streams,
    'grpc.max_connection_idle_ms': limits.idleMs,
    // A client that is gone without a word is found within two minutes.
    'grpc.keepalive_time_ms': 90_000,
    'grpc.keepalive_timeout_ms': 20_000,
    // MB a connection may take; without a limit of ours grpc-js sets none.
    'grpc-node.max_session_memory': 32,
    'grpc.enable_channelz': 0,
  }
}

/** Every call comes through here, those of reflection too, before any of its messages is read. */
function door(deps: GrpcDeps, callers: Callers, limits: GrpcLimits): ServerInterceptor {
  return ({ path, requestStream }, call) =>
    new PacedCall(call, {
      start(next) {
        let cancel = () => {}
        next({
          onReceiveMetadata(metadata, pass) {
            let caller = callerOf(path, metadata, call, deps)
            try {
              const asked = { path, authority: call.getHost() ?? '', address: caller.sourceIp }
              const sender = authenticateCall(metadata.get('authorization').map(String), asked, deps)
              const known = { ...caller, ...actingAs(sender, pairsOf(metadata)) }
              caller = known
              authorizeImpersonation(known, deps)
              callers.set(metadata, known)
            } catch (error) {
              auditCall(deps, caller, undefined, { error })
              return call.sendStatus(callStatus(error))
            }
            const ms = requestStream ? limits.streamMs : limits.requestMs
            cancel = deps.clock.after(ms, () =>
              call.sendStatus({ code: codes.DEADLINE_EXCEEDED, details: `not done after ${ms / 1_000} s` }),
            )
            pass(metadata)
          },
          onReceiveHalfClose(pass) {
            cancel()
            pass()
          },
          onCancel() {
            cancel()
          },
        })
      },
    })
}

/** Metadata as pairs. Values of one name come joined by commas (gRPC over HTTP/2, "Custom-Metadata"), so none has one. */
function pairsOf(metadata: Metadata): [string, string][] {
  return Object.keys(metadata.getMap()).flatMap((name) =>
    metadata
      .get(name)
      .flatMap((value) => String(value).split(','))
      .map((value): [string, string] => [name, value.trim()]),
  )
}

function callerOf(
  path: string,
  metadata: Metadata,
  call: ServerInterceptingCallInterface,
  { clock }: GrpcDeps,
): Caller {
  const [userAgent] = metadata.get('user-agent')
  return {
    ...{ id: randomUUID(), receivedAt: clock.now(), path },
    sourceIp: call.getConnectionInfo().remoteAddress ?? '',
    ...(userAgent !== undefined && { userAgent: String(userAgent) }),
  }
}

/**
 * Reads no message while an answer waits to be taken: the reflection service answers whatever comes, and a client that
 * asks on and on and reads nothing would fill the memory.
 */
export class PacedCall extends ServerInterceptingCall {
  #unsent = 0
  #wantsMore = false

  override sendMessage(message: unknown, callback: () => void): void {
    this.#unsent += 1
    super.sendMessage(message, () => {
      this.#unsent -= 1
      callback()
      if (this.#unsent > 0 || !this.#wantsMore) return
      this.#wantsMore = false
      super.startRead()
    })
  }

  override startRead(): void {
    if (this.#unsent > 0) this.#wantsMore = true
    else super.startRead()
  }
}

/** A call's request by its type in vmservice.proto, and what is answered. */
type Work<Request, Answer> = (request: Request, call: VmCall) => Promise<Answer>

function handlersOf(deps: GrpcDeps, callers: Callers, limits: GrpcLimits, stopping: AbortSignal) {
  const service = new VmService(deps)
  const unary =
    <Request, Answer>(work: Work<Request, Answer>): handleUnaryCall<Request, Answer> =>
    (call, callback) => {
      // An answer that nobody waits for any more is dropped by grpc-js; what was begun is done.
      const done = (vmCall: VmCall) => inTurn(deps, vmCall.identity, () => work(call.request, vmCall))
      void attempt(deps, callers.get(call.metadata), done).then(
        (answer) => callback(null, answer),
        (error: unknown) => callback(callStatus(error)),
      )
    }
  return {
    CreateVm: unary(service.createVm.bind(service)),
    GetVm: unary(service.getVm.bind(service)),
    ListVms: unary(service.listVms.bind(service)),
    StartVm: unary(service.startVm.bind(service)),
    StopVm: unary(service.stopVm.bind(service)),
    DeleteVm: unary(service.deleteVm.bind(service)),
    MigrateVm: unary(service.migrateVm.bind(service)),
    GetCapabilities: unary(service.getCapabilities.bind(service)),
    WatchVms: watching(deps, callers, limits, stopping),
  }
}

type WatchRequest = Parameters<typeof watchVms>[0]

function watching(
  deps: GrpcDeps,
  callers: Callers,
  { streamMs, stalledMs }: GrpcLimits,
  stopping: AbortSignal,
): handleServerStreamingCall<WatchRequest, object> {
  const metrics = deps.metrics && new Metrics(deps.metrics)
  return (call) => {
    const gone = new AbortController()
    call.once('cancelled', () => gone.abort())
    const over = deps.clock.after(streamMs, () => gone.abort())
    const signal = AbortSignal.any([gone.signal, stopping])
    const { clock } = deps
    const watched = attempt(deps, callers.get(call.metadata), async (vmCall) => {
      // As on the REST API: a watch waits for its turn, and holds no seat once it has begun.
      await inTurn(deps, vmCall.identity, async () => {})
      const events = watchVms(call.request, vmCall, deps.objects, signal)
      const counted = deps.fair?.watch(vmCall.identity.name, () => gone.abort())
      const ends = metrics?.watchBegins(VirtualMachine.plural)
      await sendEvents(events, call, { clock, signal, ms: stalledMs }).finally(() => {
        ends?.()
        counted?.()
      })
      if (stopping.aborted) throw new ApiError('ServiceUnavailable', 'the server is stopping')
    })
    void watched
      .then(
        () => call.end(),
        (error: unknown) => endWith(call, error),
      )
      .finally(over)
  }
}

/** Ends a stream with a status; the 'error' of grpc-js' stream is what makes it send one. */
function endWith(call: ServerWritableStream<WatchRequest, object>, error: unknown): void {
  const { code, details } = callStatus(error)
  if (!call.destroyed) call.emit('error', Object.assign(new Error(details), { code, details }))
}

/** Does a call's work, records what came of it, and logs what is our fault. Rejects as the work does. */
async function attempt<Answer>(
  deps: GrpcDeps,
  caller: (Required<Pick<Caller, 'identity'>> & Caller) | undefined,
  work: (call: VmCall) => Promise<Answer>,
): Promise<Answer> {
  if (!caller) throw new Error('a call came past the door')
  const call = new VmCall(caller, deps)
  const startedAt = deps.clock.elapsed()
  const count = (code: number) => countCall(deps.metrics, call, code, deps.clock.elapsed() - startedAt)
  try {
    const answer = await work(call)
    auditCall(deps, caller, call.asked, { code: 200 })
    count(200)
    return answer
  } catch (error) {
    auditCall(deps, caller, call.asked, { error })
    count(statusOf(error).code)
    if (callStatus(error).code === codes.INTERNAL)
      deps.log.error('gRPC call failed', { method: caller.path, err: error })
    throw error
  }
}

/** Counts a call as the request of the REST API that it stands for, with that one's HTTP code. */
function countCall(metrics: GrpcDeps['metrics'], { asked }: VmCall, code: number, ms: number): void {
  if (!metrics || !asked || 'path' in asked.target) return
  const { resource, subresource = '' } = asked.target
  countRequest(metrics, { verb: asked.verb, resource, subresource, code }, ms)
}

/**
 * Does it when it is somebody's turn, which the REST API gives, too. Administrators have no rate, as there.
 * @throws ApiError TooManyRequests
 */
async function inTurn<Answer>(
  { fair }: Pick<GrpcDeps, 'fair'>,
  identity: Identity,
  work: () => Promise<Answer>,
): Promise<Answer> {
  if (fair) spendAs(identity, fair)
  const leave = await fair?.enter(identity.name)
  return work().finally(leave)
}

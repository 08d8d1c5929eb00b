import type { AuditRecord } from '../auth/audit.ts'
import type { Target } from '../auth/authorize.ts'
import type { Identity } from '../auth/identity.ts'
import type { SignedRequest, Verdict } from '../auth/verify.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/log.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import type { PolicyRule } from '../resources/rbac.ts'
import type { Ref } from '../store/objects.ts'
import type { HandlerDeps } from './call.ts'
import type { FairQueue } from './fair.ts'
import type { Limits } from './limits.ts'
import type { Prometheus } from './prometheus.ts'

export interface Check {
  readonly name: string
  readonly ok: boolean
  readonly message?: string
}

/** What the admin API needs from the rest of the program. */
export interface ServerDeps {
  readonly objects: HandlerDeps['objects']
  readonly kinds: readonly ResourceDefinition[]
  readonly authenticate: (request: SignedRequest) => Verdict
  /** Verbs are those of requests, and those that only roles know, such as impersonate. */
  readonly authorize: (identity: Identity, verb: string, target: Target) => boolean
  /** What somebody may do, in a namespace where one is named; nothing unless told. */
  readonly rulesOf?: (identity: Identity, namespace?: string) => readonly PolicyRule[]
  /** The store as somebody may use it; `objects` for all unless told. */
  readonly objectsFor?: (identity: Identity) => HandlerDeps['objects']
  readonly audit: (record: AuditRecord) => void
  readonly log: Log
  readonly clock: Clock
  readonly version: string
  /** Which cluster this is, told to whoever asks. */
  readonly clusterId?: string
  /** Whose turn it is, where others give turns of the same; one of its own unless given. */
  readonly fair?: FairQueue
  /** What /metrics shows; what this server counts itself unless given. */
  readonly metrics?: Prometheus
  /** `defaultLimits` unless told. */
  readonly limits?: Limits
  /** PEM. Plain HTTP without it. */
  readonly tls?: { readonly key: string; readonly cert: string }
  /** What has to hold for this server to be ready, by name; `message` says why one does not. */
  readonly ready: () => readonly Check[] | Promise<readonly Check[]>
  /** Path of a machine's console socket. */
  readonly consoleOf?: (ref: Ref) => Promise<string>
  /** Path of a machine's VNC socket. */
  readonly vncOf?: (ref: Ref) => Promise<string>
  /** The last `bytes` of what a machine's QEMU wrote. */
  readonly logOf?: (ref: Ref, bytes: number) => Promise<string>
}

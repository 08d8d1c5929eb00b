import type { LaunchRecord, ProcessExit, ProcessIdentity } from '../../host/ports.ts'
import type { Hearing } from './heard.ts'

/** A recorded moment and when this agent first saw it, monotonic; `before` is what the record says had passed. */
export interface Since {
  readonly at: string
  readonly since: number
  readonly before: number
}

export interface LiveTry {
  readonly tries: number
  readonly at: number
  readonly error?: string
}

/** What the agent remembers of one machine between passes. All of it may be lost: it only sharpens what is seen. */
export interface VmMemory extends Hearing {
  /** The last process proven to be this machine's. */
  process?: {
    readonly identity: ProcessIdentity
    readonly launchId?: string
    readonly record?: LaunchRecord
    readonly seenAt: number
  }
  /** Monotonic time of the first query in a row that got no answer. */
  silentSince?: number
  launching?: boolean
  exit?: ProcessExit
  launchError?: { readonly launchId: string; readonly code: string; readonly message: string }
  /** The stop under way. */
  stop?: Since
  /** The end of the guest of the launch that still has a process. */
  ended?: Since
  powerdownAt?: number
  /** Steps of live changes under one generation of the spec, by key; `at` is when the next try may be, monotonic. */
  live?: { readonly generation: number; readonly tried: Map<string, LiveTry> }
  /** The QEMU of a machine of another host that was told of, by pid and start time. */
  stray?: string
  disposed?: boolean
  /** Why the last try to remove what is left of it failed. */
  disposeError?: string
  /** Failed disk preparations in a row under one generation, and when the next may be, monotonic. */
  diskRetry?: {
    readonly generation: number
    readonly failures: number
    readonly at: number
    waiting: boolean
  }
}

/** Memories by uid; bounded by the machines of this host, as `forget` is called when one is gone. */
export class Memories {
  readonly #byUid = new Map<string, VmMemory>()

  of(uid: string): VmMemory {
    let memory = this.#byUid.get(uid)
    if (!memory) {
      memory = {}
      this.#byUid.set(uid, memory)
    }
    return memory
  }

  /** Whether anything is remembered of a machine: one that this host has, or had until now. */
  has(uid: string): boolean {
    return this.#byUid.has(uid)
  }

  forget(uid: string): void {
    this.#byUid.delete(uid)
  }
}

import { UsageError } from './failure.ts'
import { type ClientKind, kindOf } from './kinds.ts'

/** Conditions of an object's status. */
export interface ConditionView {
  readonly type: string
  readonly status: string
  readonly reason?: string
  readonly message?: string
  readonly lastTransitionTime?: string
}

/** An object as clients read it: every member may be missing. */
export interface ObjectView {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly uid?: string
    readonly resourceVersion?: string
    readonly creationTimestamp?: string
    readonly deletionTimestamp?: string
    readonly finalizers?: readonly string[]
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec?: Readonly<Record<string, unknown>>
  readonly status?: Readonly<Record<string, unknown>> & {
    readonly phase?: string
    readonly reason?: string
    readonly message?: string
    readonly conditions?: readonly ConditionView[]
    readonly disks?: readonly {
      readonly name: string
      readonly progressPercent?: number
      readonly message?: string
    }[]
  }
}

export interface ListView<T = ObjectView> {
  readonly metadata?: { readonly resourceVersion?: string }
  readonly items: readonly T[]
}

/** Objects of one type that a command line names; no names mean all of the type. */
export interface Targets {
  readonly kind: ClientKind
  readonly names: readonly string[]
}

/**
 * What a command is about: `TYPE[,TYPE…] [NAME…]`, `TYPE/NAME…`, or `all`.
 * @throws UsageError where the type is missing or unknown
 */
export function targetsOf(args: readonly string[]): readonly Targets[] {
  const [first, ...names] = args
  if (first === undefined) throw new UsageError('no resource type given', 'such as: vm, host, events')
  if (!first.includes('/')) {
    const types = first === 'all' ? ['virtualmachines'] : first.split(',').filter((type) => type !== '')
    return types.map((type) => ({ kind: kindOf(type), names }))
  }
  const byKind = new Map<ClientKind, string[]>()
  for (const word of args) {
    const [type = '', name, ...more] = word.split('/')
    if (!name || more.length > 0) throw new UsageError(`"${word}" is no TYPE/NAME`, 'such as: vm/web host/a')
    const kind = kindOf(type)
    byKind.set(kind, [...(byKind.get(kind) ?? []), name])
  }
  return [...byKind].map(([kind, some]) => ({ kind, names: some }))
}

/** The one NAME of a machine; `vm/NAME` is understood, too. @throws UsageError */
export function machineName(args: readonly string[]): string {
  const words = args[0]?.includes('/') ? args[0].split('/').slice(1) : args
  if (words.length === 1 && words[0]) return words[0]
  throw new UsageError(words.length === 0 ? 'no machine named' : 'name one machine')
}

/** Why an object is still there or not ready yet, in one line: its phase, its percentage, what it waits for. */
export function progressOf(object: ObjectView): string {
  const { status, metadata } = object
  const failing = status?.conditions?.find((c) => c.type === 'Ready' && c.status !== 'True')
  const why = status?.message || status?.reason || failing?.message || failing?.reason
  const disk = status?.disks?.find((d) => d.progressPercent !== undefined && d.progressPercent < 100)
  const percent = disk && !why?.includes('%') ? ` (disk ${disk.name} ${disk.progressPercent} %)` : ''
  const held = metadata.deletionTimestamp && metadata.finalizers?.length
  const holds = held ? `; held by finalizer ${metadata.finalizers?.join(', ')}` : ''
  return `${status?.phase ?? 'no status yet'}${percent}${why ? `: ${why}` : ''}${holds}`
}

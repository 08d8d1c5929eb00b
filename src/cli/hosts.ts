import { hostLeaseName, systemNamespace } from '../resources/host-lease.ts'
import { type Client, connect } from './client.ts'
import type { CommandModule } from './command.ts'
import { errorObject, isServerError, renderError, UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'
import { kindOf, nameOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { type Format, renderObject } from './output.ts'
import type { ListView, ObjectView } from './targets.ts'

export interface TaintView {
  readonly key: string
  readonly value?: string
  readonly effect: string
}

/** A Host as clients read it. */
export interface HostView extends ObjectView {
  readonly spec?: Readonly<Record<string, unknown>> & {
    readonly unschedulable?: boolean
    readonly taints?: readonly TaintView[]
    readonly overcommit?: { readonly cpuPercent?: number; readonly memoryPercent?: number }
    readonly fencing?: { readonly mode?: string; readonly command?: readonly string[] }
    readonly maintenance?: { readonly reason?: string; readonly until?: string }
  }
}

/** A Lease as clients read it. */
export interface LeaseView extends ObjectView {
  readonly spec?: {
    readonly holderIdentity?: string
    readonly leaseDurationSeconds?: number
    readonly acquireTime?: string
    readonly renewTime?: string
    readonly leaseTransitions?: number
  }
}

export const hostKind = kindOf('hosts')
const leaseKind = kindOf('leases')

/** Names of hosts; `host/NAME` is understood, too. @throws UsageError where there is none */
export function hostNames(args: readonly string[]): readonly string[] {
  const names = args.map((word) => {
    const [type = '', name, ...more] = word.split('/')
    if (name === undefined) return word
    if (more.length > 0 || name === '' || kindOf(type) !== hostKind)
      throw new UsageError(`"${word}" is no host`, 'write NAME or host/NAME')
    return name
  })
  if (names.length === 0) throw new UsageError('no host named', "see 'plasmavmc get hosts'")
  return names
}

/** The one host that is named. @throws UsageError */
export function hostName(args: readonly string[]): string {
  const [name, ...more] = hostNames(args)
  if (name !== undefined && more.length === 0) return name
  throw new UsageError('name one host')
}

export function getHost(client: Client, name: string): Promise<HostView> {
  return client.json<HostView>('GET', pathOf(hostKind, undefined, name))
}

/** Changes members of a host's spec; null removes one. With `resourceVersion`, only as it was then. */
export function patchSpec(
  client: Client,
  name: string,
  spec: object,
  resourceVersion?: string,
): Promise<HostView> {
  const metadata = resourceVersion === undefined ? {} : { metadata: { resourceVersion } }
  return client.json<HostView>('PATCH', pathOf(hostKind, undefined, name), {
    body: { ...metadata, spec },
    contentType: 'application/merge-patch+json',
  })
}

/** The host's lease; undefined where it never had one, as with an embedded store. */
export async function getLease(client: Client, host: string): Promise<LeaseView | undefined> {
  try {
    return await client.json<LeaseView>('GET', pathOf(leaseKind, systemNamespace, hostLeaseName(host)))
  } catch (error) {
    if (isServerError(error, 'NotFound')) return undefined
    throw error
  }
}

export async function listAll<T = ObjectView>(client: Client, type: string): Promise<ListView<T>> {
  return client.json<ListView<T>>('GET', pathOf(kindOf(type)))
}

/** `namespace/name` of a machine, as a user tells it from others. */
export const keyOf = ({ metadata }: { metadata: { name: string; namespace?: string | undefined } }): string =>
  `${metadata.namespace ?? 'default'}/${metadata.name}`

/** The host a machine is placed on. */
export const placeOf = (machine: ObjectView): string | undefined =>
  machine.status?.['hostName'] as string | undefined

/** `1 machine`, `2 machines`. */
export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`

export interface HostChange {
  /** What is said after the host's name. */
  readonly said: string
  readonly host: HostView
}

/** A command that does one thing to each host it names; those that fail do not hold up the others. */
export function eachHost<O>(
  change: (name: string, task: { client: Client; options: O & GlobalOptions }) => Promise<HostChange>,
): CommandModule<O & { readonly output?: string }>['run'] {
  return async ({ args, options }, io) => {
    const names = hostNames(args)
    const format = formatOf(options.output, ['json', 'yaml', 'name'])
    const client = connect(options, io)
    const done: HostView[] = []
    let failed = 0
    for (const name of names) {
      try {
        const { host, said } = await change(name, { client, options })
        done.push(host)
        if (format === undefined || format === 'name')
          io.stdout.write(`${nameOf(hostKind, name)}${format === 'name' ? '' : ` ${said}`}\n`)
      } catch (error) {
        if (names.length === 1 || io.signal.aborted) throw error
        failed += 1
        const json = format === 'json'
        io.stderr.write(json ? `${JSON.stringify(errorObject(error), null, 2)}\n` : renderError(error))
      }
    }
    await printHosts(done, names.length === 1, format, io)
    client.close()
    return failed === 0 ? 0 : 1
  }
}

async function printHosts(hosts: readonly HostView[], one: boolean, format: Format, io: Io): Promise<void> {
  if (format !== 'json' && format !== 'yaml') return
  const all = one ? hosts[0] : { apiVersion: 'v1', kind: 'List', metadata: {}, items: hosts }
  io.stdout.write(await renderObject(all, format))
}

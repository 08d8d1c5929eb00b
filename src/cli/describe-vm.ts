import { type Nbd, nbdUrl } from '../resources/nbd.ts'
import type { Io } from './io.ts'
import { age, plain, renderTable, wrapText } from './output.ts'
import type { ObjectView } from './targets.ts'

interface Forward {
  readonly protocol?: string
  readonly hostAddress?: string
  readonly hostPort?: number
  readonly guestPort?: number
}

interface Network {
  readonly name: string
  readonly mac?: string
  readonly model?: string
  readonly bridge?: { readonly name?: string }
  readonly tap?: { readonly name?: string }
  readonly user?: { readonly forwards?: readonly Forward[] }
}

interface Disk {
  readonly name: string
  readonly size?: string | number
  readonly format?: string
  readonly bus?: string
  readonly readOnly?: boolean
  readonly path?: string
  readonly image?: { readonly source?: string }
  readonly nbd?: Nbd
}

interface Spec {
  readonly runStrategy?: string
  readonly machine?: string
  readonly firmware?: string
  readonly memory?: string | number
  readonly cpu?: {
    readonly cores?: number
    readonly sockets?: number
    readonly threads?: number
    readonly model?: string
  }
  readonly kernel?: { readonly image?: string; readonly initrd?: string; readonly cmdline?: string }
  readonly cloudInit?: object
  readonly disks?: readonly Disk[]
  readonly networks?: readonly Network[]
  readonly devices?: { readonly watchdog?: { readonly action?: string } }
  readonly hostSelector?: Readonly<Record<string, string>>
  readonly terminationGracePeriodSeconds?: number
  readonly priority?: number
  readonly recovery?: { readonly onHostLoss?: string }
  readonly tolerations?: readonly Toleration[]
}

interface Toleration {
  readonly key?: string
  readonly value?: string
  readonly effect?: string
}

interface Status {
  readonly phase?: string
  readonly reason?: string
  readonly message?: string
  readonly hostName?: string
  readonly placementEpoch?: number
  readonly onHostLoss?: string
  readonly disksHost?: string
  readonly restarts?: number
  readonly process?: { readonly pid?: number; readonly accelerator?: string; readonly startedAt?: string }
  readonly backoff?: { readonly failures?: number; readonly retryAt?: string }
  readonly stop?: { readonly why?: string; readonly at?: string; readonly graceSeconds?: number }
  readonly request?: { readonly action?: string; readonly at?: string }
  readonly lastExit?: { readonly reason?: string; readonly message?: string; readonly at?: string }
  readonly disks?: readonly {
    readonly name: string
    readonly state?: string
    readonly path?: string
    readonly message?: string
    readonly progressPercent?: number
  }[]
  readonly networks?: readonly { readonly name: string; readonly mac?: string }[]
}

type Pair = readonly [string, string | undefined]

const keyWidth = 16

/** `Key:  text`, long texts going on below on a terminal. */
export function pairLines(pairs: readonly Pair[], io: Io): string {
  const { isTTY, columns } = io.stdout
  const room = isTTY && columns ? Math.max(20, columns - keyWidth) : Number.POSITIVE_INFINITY
  return pairs
    .flatMap(([key, value]) => {
      if (value === undefined || value === '') return []
      const lines = Number.isFinite(room) ? wrapText(plain(value), room) : [plain(value)]
      return lines.map((line, i) => `${(i === 0 ? `${key}:` : '').padEnd(keyWidth)}${line}\n`)
    })
    .join('')
}

const ago = (at: string | undefined, io: Io) =>
  at === undefined ? '' : `${age(io.clock.now() - Date.parse(at))} ago`

function nextTry({ backoff, process }: Status, io: Io): string | undefined {
  if (!backoff?.retryAt) return undefined
  const failures = `${backoff.failures} ${backoff.failures === 1 ? 'failure' : 'failures'} in a row`
  // A machine that runs waits for nothing; a run that lasts clears the count.
  if (process?.pid !== undefined) return `${failures} before this run`
  const left = Date.parse(backoff.retryAt) - io.clock.now()
  const when = left > 0 ? `in ${age(left)}` : 'now'
  return `${failures}; next try ${when} (${backoff.retryAt})`
}

function stateOf(spec: Spec, status: Status, io: Io): readonly Pair[] {
  const { phase, reason, message, process, lastExit, stop, request } = status
  const running = process?.pid !== undefined
  return [
    ['Status', `${phase ?? 'not looked at yet'}${reason && reason !== phase ? ` (${reason})` : ''}`],
    ['Why', message],
    [
      'QEMU',
      running
        ? `pid ${process.pid}, ${process.accelerator}, started ${ago(process.startedAt, io)}`
        : undefined,
    ],
    ['Run strategy', spec.runStrategy],
    ['Restarts', String(status.restarts ?? 0)],
    ['Back-off', nextTry(status, io)],
    ['Last exit', lastExit && `${lastExit.reason}, ${ago(lastExit.at, io)}: ${lastExit.message ?? ''}`],
    ['Stopping', stop && `${stop.why}, since ${stop.at}; at most ${stop.graceSeconds} s`],
    ['Asked for', request && `${request.action}, ${ago(request.at, io)}`],
  ]
}

/** Where it is, under which epoch of that host's lease, and what becomes of it when the host is lost. */
function placementOf(spec: Spec, status: Status, evidence: string | undefined): readonly Pair[] {
  const { hostName, placementEpoch: epoch, onHostLoss: now = 'Manual', disksHost } = status
  const { onHostLoss: wanted = 'Manual' } = spec.recovery ?? {}
  const loss = {
    Manual: 'waits for it',
    Failover: 'is stopped there and started on another',
  }
  const yet = now === wanted || hostName === undefined ? '' : `; for now: ${now}`
  const alone = epoch === undefined && wanted === 'Manual'
  const put = (spec.tolerations ?? []).map(({ key = '*', value, effect = '*' }) =>
    [key, value === undefined ? '' : `=${value}`, `:${effect}`].join(''),
  )
  const labels = Object.entries(spec.hostSelector ?? {}).map(([key, value]) => `${key}=${value}`)
  return [
    ['Host', hostName && `${hostName}${epoch === undefined ? '' : `, since epoch ${epoch} of its lease`}`],
    ['Disks on', disksHost === hostName ? undefined : disksHost],
    ['On host loss', alone ? undefined : `${wanted}: it ${loss[wanted as keyof typeof loss] ?? ''}${yet}`],
    ['Moved by', evidence],
    ['Host selector', labels.join(', ')],
    ['Tolerations', put.join(', ')],
    ['Priority', spec.priority ? String(spec.priority) : undefined],
  ]
}

function hardwareOf(spec: Spec): readonly Pair[] {
  const { cores = 1, sockets = 1, threads = 1, model } = spec.cpu ?? {}
  const { kernel, devices } = spec
  const shape = sockets * threads > 1 ? ` (${sockets} × ${cores} × ${threads})` : ''
  return [
    ['Machine', `${spec.machine}, ${spec.firmware}`],
    ['CPUs', `${cores * sockets * threads}${shape}, ${model}`],
    ['Memory', String(spec.memory ?? '')],
    ['Kernel', kernel && [kernel.image, kernel.initrd, kernel.cmdline].filter(Boolean).join('  ')],
    ['Cloud-init', spec.cloudInit && 'yes'],
    ['Watchdog', devices?.watchdog?.action],
    ['Grace period', `${spec.terminationGracePeriodSeconds} s`],
  ]
}

function disksOf(spec: Spec, status: Status, io: Io): string {
  const declared = spec.disks ?? []
  const seen = status.disks ?? []
  const names = [...new Set([...declared, ...seen].map(({ name }) => name))]
  if (names.length === 0) return ''
  const rows = names.map((name) => {
    const disk = declared.find((d) => d.name === name)
    const now = seen.find((d) => d.name === name)
    const percent = now?.progressPercent === undefined ? '' : ` ${now.progressPercent} %`
    const file = now?.path ?? (disk?.nbd ? nbdUrl(disk.nbd) : (disk?.path ?? disk?.image?.source))
    const kind = disk ? `${disk.format} ${disk.bus}${disk.readOnly ? ' read-only' : ''}` : undefined
    return [name, disk?.size, `${now?.state ?? 'Pending'}${percent}`, kind, now?.message ?? file]
  })
  const columns = ['Name', 'Size', 'State', 'Kind', 'File']
  const style = { out: io.stdout, env: io.env, wrap: true, indent: 2 }
  return `Disks:\n${renderTable({ columns, rows }, style).text}`
}

const forwardText = ({ protocol, hostAddress, hostPort, guestPort }: Forward) =>
  `${hostAddress}:${hostPort}/${protocol} → ${guestPort}`

function networksOf(spec: Spec, status: Status, io: Io): string {
  const rows = (spec.networks ?? []).map((network) => {
    const { name, bridge, tap, user, model } = network
    const mac = status.networks?.find((n) => n.name === name)?.mac ?? network.mac
    const link = bridge ? `bridge ${bridge.name}` : tap ? `tap ${tap.name}` : 'user'
    return [name, link, mac, model, (user?.forwards ?? []).map(forwardText).join(', ')]
  })
  if (rows.length === 0) return ''
  const columns = ['Name', 'Link', 'MAC', 'Model', 'Forwards']
  const style = { out: io.stdout, env: io.env, wrap: true, indent: 2 }
  return `Networks:\n${renderTable({ columns, rows }, style).text}`
}

/**
 * What a machine is and how it stands, for people.
 * @param evidence what proved its last host lost, where it was taken from one
 */
export function describeMachine(object: ObjectView, io: Io, evidence?: string): string {
  const spec = (object.spec ?? {}) as Spec
  const status = (object.status ?? {}) as Status
  return [
    pairLines(stateOf(spec, status, io), io),
    pairLines(placementOf(spec, status, evidence), io),
    pairLines(hardwareOf(spec), io),
    disksOf(spec, status, io),
    networksOf(spec, status, io),
  ].join('')
}

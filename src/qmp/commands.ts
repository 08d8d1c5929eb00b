import { z } from 'zod'
import { excerpt } from './codec.ts'
import { ProtocolError } from './errors.ts'
import { jobStates, migrationStates } from './events.ts'
import { openEnum, statusInfo, versionInfo } from './types.ts'

interface Command<A extends z.ZodType, R extends z.ZodType> {
  /** What we may send. Members that only some QEMUs from 7.2 on take are left out. */
  readonly args: A
  /** What we read of the answer; members that we don't name are dropped. */
  readonly result: R
  /** How long an answer may take on a healthy but busy host, ms. */
  readonly timeoutMs: number
  /** Whether QEMU takes it out of band. */
  readonly oob: boolean
}

const usualMs = 10_000
/** Commands that open images, allocate memory or reach another host. */
const slowMs = 60_000

const none = z.strictObject({})
/** QEMU answers `{}`: done. */
const done = z.object({})
type Traits = { readonly timeoutMs?: number; readonly oob?: boolean }

function command<A extends z.ZodType, R extends z.ZodType>(
  args: A,
  result: R,
  { timeoutMs = usualMs, oob = false }: Traits = {},
): Command<A, R> {
  return { args, result, timeoutMs, oob }
}

const text = z.string()
/** Doubles hold every size we show; an answer is not refused because a counter is larger. */
const count = z.number()
const id = z.strictObject({ id: text })

const image = z.object({
  filename: text,
  format: text,
  /** Bytes the guest sees. */
  'virtual-size': count,
  /** Bytes on the host's storage. */
  'actual-size': count.optional(),
  'backing-filename': text.optional(),
})
const blockNode = z.object({
  file: text,
  'node-name': text.optional(),
  ro: z.boolean(),
  drv: text,
  image,
})

const nodeOptions = {
  'node-name': text,
  'read-only': z.boolean().optional(),
  discard: z.enum(['ignore', 'unmap']).optional(),
  cache: z.strictObject({ direct: z.boolean(), 'no-flush': z.boolean() }).optional(),
}
const fileOptions = { ...nodeOptions, filename: text, locking: z.enum(['on', 'off', 'auto']).optional() }
const socketAddress = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('unix'), path: text }),
  z.strictObject({ type: z.literal('inet'), host: text, port: text }),
])
const newNode = z.discriminatedUnion('driver', [
  z.strictObject({ driver: z.literal('file'), ...fileOptions }),
  z.strictObject({ driver: z.literal('host_device'), ...fileOptions }),
  /** `file` names a node made before. */
  z.strictObject({ driver: z.literal('raw'), ...nodeOptions, file: text }),
  z.strictObject({
    driver: z.literal('qcow2'),
    ...nodeOptions,
    file: text,
    backing: text.nullable().optional(),
  }),
  z.strictObject({
    driver: z.literal('nbd'),
    ...nodeOptions,
    server: socketAddress,
    export: text.optional(),
    /** Seconds. */
    'reconnect-delay': z.int().nonnegative().optional(),
    'open-timeout': z.int().nonnegative().optional(),
  }),
])

const newNetdev = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('user'),
    id: text,
    hostfwd: z.array(z.strictObject({ str: text })).optional(),
  }),
  /** A tap that is there already; `no` for the scripts that QEMU would run. */
  z.strictObject({
    type: z.literal('tap'),
    id: text,
    ifname: text,
    script: z.literal('no'),
    downscript: z.literal('no'),
  }),
])

const newObject = z.discriminatedUnion('qom-type', [
  z.strictObject({ 'qom-type': z.literal('rng-random'), id: text, filename: text }),
  z.strictObject({ 'qom-type': z.literal('iothread'), id: text }),
])

/** Those that every QEMU from 7.2 on knows. */
const migrationCapabilities = [
  'auto-converge',
  'background-snapshot',
  'dirty-bitmaps',
  'events',
  'late-block-activate',
  'multifd',
  'pause-before-switchover',
  'postcopy-ram',
  'release-ram',
  'return-path',
  'validate-uuid',
  'zero-copy-send',
] as const

const migrationInfo = z.object({
  status: openEnum(migrationStates).optional(),
  ram: z
    .object({
      /** Bytes. */
      transferred: count,
      remaining: count,
      total: count,
      'dirty-pages-rate': count,
      'page-size': count,
      mbps: count,
    })
    .optional(),
  /** Milliseconds. */
  'total-time': count.optional(),
  'setup-time': count.optional(),
  downtime: count.optional(),
  'expected-downtime': count.optional(),
  'error-desc': text.optional(),
  'blocked-reasons': z.array(text).optional(),
})

const yankInstance = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('block-node'), 'node-name': text }),
  z.strictObject({ type: z.literal('chardev'), id: text }),
  z.strictObject({ type: z.literal('migration') }),
])

/**
 * The commands that we use: what is sent, what is read of the answer (QEMU's qapi/*.json). A test holds it against the
 * schemas that several QEMUs tell of themselves. Passing file descriptors (getfd, add-fd) is not among them: Node can't
 * send any.
 */
export const commands = {
  'query-status': command(none, statusInfo),
  'query-version': command(none, versionInfo),
  'query-uuid': command(none, z.object({ UUID: text })),
  'query-name': command(none, z.object({ name: text.optional() })),
  'query-kvm': command(none, z.object({ enabled: z.boolean(), present: z.boolean() })),
  'query-block': command(
    none,
    z.array(
      z.object({
        device: text,
        qdev: text.optional(),
        inserted: blockNode.optional(),
        'io-status': openEnum(['ok', 'failed', 'nospace']).optional(),
      }),
    ),
  ),
  'query-named-block-nodes': command(z.strictObject({ flat: z.boolean().optional() }), z.array(blockNode)),
  'query-chardev': command(
    none,
    z.array(z.object({ label: text, filename: text, 'frontend-open': z.boolean() })),
  ),
  'query-qmp-schema': command(none, z.array(z.looseObject({ name: text, 'meta-type': text }))),
  'query-cpus-fast': command(
    none,
    z.array(z.object({ 'cpu-index': count, 'qom-path': text, 'thread-id': count })),
  ),
  /** Bytes that the guest has now. */
  'query-balloon': command(none, z.object({ actual: count })),
  /** Bytes that the guest should have. */
  balloon: command(z.strictObject({ value: z.int().positive() }), done),

  cont: command(none, done),
  stop: command(none, done),
  system_reset: command(none, done),
  system_powerdown: command(none, done),
  quit: command(none, done),
  'set-action': command(
    z.strictObject({
      reboot: z.enum(['reset', 'shutdown']).optional(),
      shutdown: z.enum(['poweroff', 'pause']).optional(),
      panic: z.enum(['pause', 'shutdown', 'exit-failure', 'none']).optional(),
      watchdog: z.enum(['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi']).optional(),
    }),
    done,
  ),

  /** Bytes. */
  block_resize: command(z.strictObject({ 'node-name': text, size: z.int().nonnegative() }), done, {
    timeoutMs: slowMs,
  }),
  'blockdev-add': command(newNode, done, { timeoutMs: slowMs }),
  'blockdev-del': command(z.strictObject({ 'node-name': text }), done, { timeoutMs: slowMs }),
  /** Further members are the device's own properties. */
  device_add: command(z.looseObject({ driver: text, id: text, bus: text.optional() }), done, {
    timeoutMs: slowMs,
  }),
  /** Only asks the guest; DEVICE_DELETED or DEVICE_UNPLUG_GUEST_ERROR tells. */
  device_del: command(id, done),
  netdev_add: command(newNetdev, done, { timeoutMs: slowMs }),
  netdev_del: command(id, done),
  'object-add': command(newObject, done, { timeoutMs: slowMs }),
  'object-del': command(id, done),
  'qom-list': command(z.strictObject({ path: text }), z.array(z.object({ name: text, type: text }))),
  'qom-get': command(z.strictObject({ path: text, property: text }), z.unknown()),
  /** For people: its text is no interface. */
  'human-monitor-command': command(z.strictObject({ 'command-line': text }), text, { timeoutMs: slowMs }),

  'query-jobs': command(
    none,
    z.array(
      z.object({
        id: text,
        type: openEnum([
          'commit',
          'stream',
          'mirror',
          'backup',
          'create',
          'amend',
          'snapshot-load',
          'snapshot-save',
          'snapshot-delete',
        ]),
        status: openEnum(jobStates),
        'current-progress': count,
        'total-progress': count,
        error: text.optional(),
      }),
    ),
  ),

  'query-migrate': command(none, migrationInfo),
  'query-migrate-capabilities': command(none, z.array(z.object({ capability: text, state: z.boolean() }))),
  'migrate-set-capabilities': command(
    z.strictObject({
      capabilities: z.array(
        z.strictObject({ capability: z.enum(migrationCapabilities), state: z.boolean() }),
      ),
    }),
    done,
  ),
  migrate: command(z.strictObject({ uri: text, resume: z.boolean().optional() }), done, {
    timeoutMs: slowMs,
  }),
  'migrate-incoming': command(z.strictObject({ uri: text }), done, { timeoutMs: slowMs }),
  migrate_cancel: command(none, done),

  /** Answered even while QEMU's main loop is stuck: what of it could be freed by `yank`. */
  'query-yank': command(none, z.array(z.looseObject({ type: text })), { oob: true }),
  /** Cuts connections to other hosts on which QEMU hangs; not one that is only being made. */
  yank: command(z.strictObject({ instances: z.array(yankInstance) }), done, { oob: true }),
} as const

export type CommandName = keyof typeof commands
/** What `execute` takes for a command. */
export type ArgumentsOf<N extends CommandName> = z.input<(typeof commands)[N]['args']>
/** What `execute` resolves to. */
export type ResultOf<N extends CommandName> = z.output<(typeof commands)[N]['result']>

/** The rest of a call after the command's name; arguments may be left out where none is required. */
export type CallOf<N extends CommandName, Options> =
  Record<never, never> extends ArgumentsOf<N>
    ? [args?: ArgumentsOf<N> | undefined, options?: Options]
    : [args: ArgumentsOf<N>, options?: Options]

/** The answer of a command, as its schema has it. @throws ProtocolError `BadAnswer`, which names the command */
export function parseAnswer<N extends CommandName>(name: N, value: unknown): ResultOf<N> {
  const schema: z.ZodType = commands[name].result
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data as ResultOf<N>
  const issue = parsed.error.issues[0]
  const where = issue && issue.path.length > 0 ? `${issue.path.join('.')}: ` : ''
  throw new ProtocolError('BadAnswer', `${name} answered ${excerpt(value)} (${where}${issue?.message})`)
}

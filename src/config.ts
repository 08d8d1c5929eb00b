import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { hostname } from 'node:os'
import { isAbsolute, resolve } from 'node:path'
import { z } from 'zod'
import { defaultAddress, defaultDataDir, defaultRunDir } from './lib/dirs.ts'
import { errnoOf, messageOf, PlasmaError } from './lib/errors.ts'

export const roles = ['api', 'controller', 'agent'] as const
export type Role = (typeof roles)[number]

const folder = z.string().min(1).refine(isAbsolute, 'must be an absolute path')

const address = z
  .string()
  .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/, 'must be host:port, such as 127.0.0.1:7443')
  .transform((text) => {
    const at = text.lastIndexOf(':')
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) }
  })
  .refine(({ port }) => port <= 65_535, 'port must be at most 65535')

/** `none`, or where gRPC is served; nothing where it is left to us. */
const grpcAddress = z.union(
  [z.literal('none'), address],
  'must be host:port, such as 127.0.0.1:50051, or none',
)

const roleList = z
  .union([z.string().transform((text) => text.split(',').map((word) => word.trim())), z.array(z.string())])
  .pipe(z.array(z.enum(roles, 'must be some of api, controller, agent')).min(1))

const etcdList = z
  .union([z.string().transform((text) => text.split(',').map((word) => word.trim())), z.array(z.string())])
  .pipe(
    z
      .array(
        z
          .string()
          .regex(
            /^(https?:\/\/)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/,
            'must be host:port or https://host:port, several with commas between',
          ),
      )
      .min(1),
  )

const file = z.string().min(1, 'must be a file')

const seconds = z
  .union(
    [
      z.number(),
      z
        .string()
        .regex(/^\d+(\.\d+)?$/)
        .transform(Number),
    ],
    'must be a number of seconds',
  )
  .pipe(z.number('must be a number of seconds').positive('must be more than 0').max(3_600))

const percent = z
  .union([z.number(), z.string().regex(/^\d+$/).transform(Number)], 'must be a number of percent')
  .pipe(z.int('must be whole percent').min(0).max(50, 'must be at most 50: it can only be lowered'))

/** A whole number of something within these bounds. */
const count = (least: number, most: number) =>
  z
    .union([z.number(), z.string().regex(/^\d+$/).transform(Number)], 'must be a whole number')
    .pipe(
      z
        .int('must be a whole number')
        .min(least, `must be at least ${least}`)
        .max(most, `must be at most ${most}`),
    )

const yes = z.union(
  [z.boolean(), z.enum(['true', '1', 'false', '0']).transform((text) => text === 'true' || text === '1')],
  'must be true or false',
)

/** What `plasmavmc serve` can be told, by flags, environment and file alike. */
const schema = z.strictObject({
  dataDir: folder.describe('Store, CA, credentials, disks, images.'),
  runDir: folder.describe('Sockets and launch records of machines.'),
  listen: address.describe('host:port of the API.'),
  grpcListen: grpcAddress
    .optional()
    .describe('host:port of gRPC, or none; by default 127.0.0.1:50051, unless that is in use.'),
  metricsListen: address
    .optional()
    .describe(
      'host:port of /metrics, /livez and /readyz without a signature, over plain HTTP; there is none unless given.',
    ),
  hostName: z
    .string()
    .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be lower-case letters, digits, dots and -')
    .max(253)
    .describe('Name of this Host.'),
  store: z
    .enum(['lmdb', 'etcd', 'memory', 'kubernetes'], 'must be lmdb, etcd, memory or kubernetes')
    .describe('Where objects are kept; memory forgets them at the end.'),
  kubeconfig: file
    .optional()
    .describe('How to reach the API of --store kubernetes; in a pod its service account otherwise.'),
  etcdEndpoints: etcdList.optional().describe('host:port of the members of etcd.'),
  etcdPrefix: z
    .string()
    .regex(/^(\/[A-Za-z0-9._-]{1,100}){1,5}$/, 'must be like /plasmavmc: no slash at its end')
    .describe('Under which everything is kept in etcd.'),
  etcdCa: file.optional().describe('PEM file of the CAs that certify etcd; what Node.js trusts otherwise.'),
  etcdCert: file.optional().describe('PEM file of our certificate for etcd.'),
  etcdKey: file.optional().describe('PEM file of its key.'),
  etcdUser: z.string().min(1).optional().describe('User of etcd.'),
  etcdPasswordFile: file.optional().describe('File with the password of that user.'),
  acceptStoreReset: yes.describe(
    'Take an etcd that was restored, or is another one, as it is. For one start, by a person who looked.',
  ),
  leaseDuration: seconds.describe('Seconds after which the lease of a silent host may be taken.'),
  leaseRenew: seconds.describe('Seconds between two renewals of a lease.'),
  leaseDeadline: seconds.describe(
    'Seconds after its last renewal when a host that is cut off stops its failover-enabled machines.',
  ),
  peerListen: address.describe('host:port (UDP) on which the guard answers other hosts.'),
  peerAddress: address
    .optional()
    .describe('host:port by which they reach it; by default our address on the way to etcd.'),
  fencing: z
    .enum(['none', 'guard', 'watchdog'], 'must be none, guard or watchdog')
    .describe('How this host makes sure that it stops failover-enabled machines when it is cut off.'),
  watchdogDevice: file.describe('Watchdog of the host, for --fencing watchdog.'),
  brake: percent.describe(
    'Percent of the hosts: where at least so many may be lost at once, none is fenced. At most 50.',
  ),
  maxConnections: count(64, 100_000).describe('Connections of the API at once; four fifths may be watches.'),
  maxRequestsInflight: count(4, 4_096).describe('Requests done at once; three quarters of them of one user.'),
  maxRequestsWaiting: count(64, 65_536).describe(
    'Requests that wait for that; an eighth of them of one user.',
  ),
  requestRate: count(10, 1_000_000).describe(
    'Requests a second of one user; twice as many may come at once.',
  ),
  watchesPerUser: count(10, 100_000).describe('Watches of one user.'),
  consolesPerUser: count(1, 10_000).describe('Consoles and displays of one user; four times as many in all.'),
  failedAttempts: count(5, 10_000).describe(
    'Bad signatures in a row with one key from one address; then one a second is looked at.',
  ),
  roles: roleList.describe('Which parts run.'),
  logLevel: z
    .enum(['debug', 'info', 'warn', 'error'], 'must be debug, info, warn or error')
    .describe('Least level that is logged.'),
  accelerator: z
    .enum(['auto', 'kvm', 'tcg'], 'must be auto, kvm or tcg')
    .describe('auto: KVM where guests really run under it.'),
  qemu: z.string().min(1).describe('QEMU binary.'),
})

export type Config = z.output<typeof schema>
type Setting = keyof Config
type Given = Readonly<Partial<Record<Setting | 'config', unknown>>>

/** Every setting's name, as camelCase. */
export const settings = Object.keys(schema.shape) as readonly Setting[]

const words = (name: string) => name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)
/** `dataDir` as the flag that sets it: `--data-dir`. */
export const flagOf = (name: string): string => `--${words(name)}`
/** `dataDir` as the environment variable that sets it: `PLASMAVMC_DATA_DIR`. */
export const variableOf = (name: string): string =>
  `PLASMAVMC_${words(name).replaceAll('-', '_').toUpperCase()}`

// Only where there is a file to read: most commands, and the guard that must start quickly, have none.
const yaml = () => createRequire(import.meta.url)('yaml') as typeof import('yaml')

function whyUnreadable(error: unknown): string {
  if (errnoOf(error) === 'ENOENT') return 'does not exist'
  if (!(error instanceof yaml().YAMLParseError)) return messageOf(error)
  const [at] = error.linePos ?? []
  const text = error.message.split(/ at line \d+/)[0] ?? ''
  return at ? `line ${at.line}, column ${at.col}: ${text}` : text
}

function fromFile(path: string): Readonly<Record<string, unknown>> {
  const problem = (why: string, cause?: unknown) =>
    new PlasmaError('BadConfig', `configuration file ${path}: ${why}`, {
      hint: 'correct it, or leave --config out',
      cause,
    })
  let value: unknown
  try {
    value = yaml().parse(readFileSync(path, 'utf8')) ?? {}
  } catch (error) {
    throw problem(whyUnreadable(error), error)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw problem('is no YAML mapping')
  const stranger = Object.keys(value).find((key) => !settings.includes(key as Setting))
  if (stranger) throw problem(`knows no "${stranger}"; settings are: ${settings.join(', ')}`)
  return value as Record<string, unknown>
}

/** @param store decides what there is to fence with */
function defaults(
  env: Readonly<Record<string, string | undefined>>,
  { uid, machine, store }: { readonly uid: number; readonly machine: string; readonly store: unknown },
) {
  return {
    dataDir: defaultDataDir(env, uid),
    runDir: defaultRunDir(env, uid),
    listen: defaultAddress,
    grpcListen: undefined,
    metricsListen: undefined,
    hostName: machine.toLowerCase(),
    store: 'lmdb',
    kubeconfig: undefined,
    etcdEndpoints: undefined,
    etcdPrefix: '/plasmavmc',
    etcdCa: undefined,
    etcdCert: undefined,
    etcdKey: undefined,
    etcdUser: undefined,
    etcdPasswordFile: undefined,
    acceptStoreReset: false,
    leaseDuration: 10,
    leaseRenew: 3,
    leaseDeadline: 6,
    peerListen: '0.0.0.0:7444',
    peerAddress: undefined,
    fencing: store === 'kubernetes' ? 'none' : 'guard',
    watchdogDevice: '/dev/watchdog',
    brake: 50,
    maxConnections: 5_000,
    maxRequestsInflight: 64,
    maxRequestsWaiting: 4_096,
    requestRate: 2_000,
    watchesPerUser: 1_000,
    consolesPerUser: 64,
    failedAttempts: 20,
    roles: [...roles],
    logLevel: 'info',
    accelerator: 'auto',
    qemu: 'qemu-system-x86_64',
  } satisfies Record<Setting, unknown>
}

/** A setting and what is wrong with it. */
type Problem = readonly [Setting, string]

/** Settings of servers that share a store. */
const clusterSetting = /^(etcd|acceptStore|lease|peer|fencing|watchdog|brake)/

/** What a server with a store of its own may be told of the agents of other hosts that join it. */
const joinedSetting = /^(lease|brake)/

/** What does not go together, if anything; `given` are the settings that are not left to their defaults. */
function clash(config: Config, given: ReadonlySet<string>): Problem | undefined {
  const { etcdEndpoints, etcdCert, etcdKey, etcdUser, etcdPasswordFile } = config
  if (config.store === 'kubernetes') return kubernetesClash(config, given)
  if (given.has('kubeconfig')) return ['kubeconfig', `is for --store kubernetes, not for ${config.store}`]
  if (config.store !== 'etcd') return embeddedClash(config, given)
  if (!etcdEndpoints) return ['store', 'etcd needs --etcd-endpoints']
  if (given.has('watchdogDevice') && config.fencing !== 'watchdog')
    return ['watchdogDevice', 'is for --fencing watchdog']
  const plain = etcdEndpoints.some((endpoint) => endpoint.startsWith('http://'))
  const secure = etcdEndpoints.some((endpoint) => endpoint.startsWith('https://'))
  if (plain && secure) return ['etcdEndpoints', 'must be all https:// or all http://']
  const withTls = (['etcdCa', 'etcdCert'] as const).find((name) => config[name] !== undefined)
  if (plain && withTls)
    return [withTls, 'is for https:// endpoints, but those of --etcd-endpoints are http://']
  if (etcdCert && !etcdKey) return ['etcdCert', 'needs --etcd-key']
  if (etcdKey && !etcdCert) return ['etcdKey', 'needs --etcd-cert']
  if (etcdUser && !etcdPasswordFile) return ['etcdUser', 'needs --etcd-password-file']
  if (etcdPasswordFile && !etcdUser) return ['etcdPasswordFile', 'needs --etcd-user']
  return undefined
}

function embeddedClash(config: Config, given: ReadonlySet<string>): Problem | undefined {
  const missing = roles.filter((role) => !config.roles.includes(role))
  if (missing.some((role) => role !== 'agent'))
    return [
      'roles',
      `must be all of ${roles.join(', ')}: with --store ${config.store} one server does everything; or api,controller, where the agents of other hosts join it`,
    ]
  const joined = missing.length > 0
  const stray = settings.find(
    (name) => clusterSetting.test(name) && given.has(name) && !(joined && joinedSetting.test(name)),
  )
  return stray && [stray, `is for --store etcd, not for ${config.store}`]
}

/** See docs/adr/0011-kubernetes-store.md for why no host fences itself there. */
function kubernetesClash(config: Config, given: ReadonlySet<string>): Problem | undefined {
  if (config.roles.includes('api'))
    return ['roles', 'must be controller, agent or both: with --store kubernetes its API is the API']
  if (config.fencing !== 'none')
    return [
      'fencing',
      'must be none with --store kubernetes: it can keep no condition over two objects, and no key by which guards know each other, so no machine is started elsewhere unless a person says that its host is off',
    ]
  const stray = settings.find((name) => /^(etcd|acceptStore|peer|watchdog)/.test(name) && given.has(name))
  return stray && [stray, 'is for --store etcd, not for kubernetes']
}

/** Whether other hosts may have the same store: then a host has a lease, and a guard that renews it. */
export function isShared({ store }: Pick<Config, 'store'>): boolean {
  return store === 'etcd' || store === 'kubernetes'
}

/** The endpoints of etcd as URLs: where none says otherwise they are https where a CA or a certificate is given. */
export function etcdUrls({ etcdEndpoints = [], etcdCa, etcdCert }: Config): string[] {
  const secure =
    etcdCa !== undefined || etcdCert !== undefined || etcdEndpoints.some((one) => one.startsWith('https://'))
  return etcdEndpoints.map((one) => `${secure ? 'https' : 'http'}://${one.replace(/^https?:\/\//, '')}`)
}

/**
 * The configuration of a server: flags win over the environment, that over the file, that over the defaults.
 * @throws PlasmaError `BadConfig` that names the setting and where it came from
 */
export function loadConfig(
  flags: Given,
  env: Readonly<Record<string, string | undefined>>,
  options: { readonly uid: number; readonly machine?: string },
): Config {
  const path = (flags.config as string | undefined) ?? (env['PLASMAVMC_CONFIG'] || undefined)
  const file = path === undefined ? {} : fromFile(path)
  const { uid, machine = hostname() } = options
  const store = flags.store ?? (env[variableOf('store')] || file['store'])
  const fallback: Record<string, unknown> = defaults(env, { uid, machine, store })
  const given: Record<string, unknown> = {}
  const origin = new Map<string, string>()
  for (const name of settings) {
    const sources: readonly (readonly [unknown, string])[] = [
      [flags[name], flagOf(name)],
      [env[variableOf(name)] || undefined, variableOf(name)],
      [file[name], `${name} of ${path}`],
      [fallback[name], `the default of ${flagOf(name)}`],
    ]
    const [value, from] = sources.find(([candidate]) => candidate !== undefined) ?? [undefined, name]
    const isPath = name === 'dataDir' || name === 'runDir' || name === 'kubeconfig'
    given[name] = isPath && typeof value === 'string' && value !== '' ? resolve(value) : value
    origin.set(name, from)
  }
  const refuse = (name: string, why: string | undefined) => {
    const where = origin.get(name) ?? 'configuration'
    return new PlasmaError('BadConfig', `${where}: ${why}`, { hint: "see 'plasmavmc help serve'" })
  }
  const parsed = schema.safeParse(given)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw refuse(String(issue?.path[0]), issue?.message)
  }
  const said = settings.filter((name) => given[name] !== fallback[name])
  const wrong = clash(parsed.data, new Set(said))
  if (wrong) throw refuse(...wrong)
  return parsed.data
}

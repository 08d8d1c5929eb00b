import { z } from 'zod'
import { PlasmaError } from '../lib/errors.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { Host } from '../resources/host.ts'
import { findKind, StoragePool } from '../resources/kinds.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { isReason } from '../store/errors.ts'
import { chronicle } from './chronicle.ts'
import { type Fault, Faults } from './faults.ts'
import type { HostParts } from './parts.ts'
import { World } from './world.ts'

const strings = z
  .union([z.string(), z.array(z.string())])
  .transform((one) => (Array.isArray(one) ? one : [one]))
const spec = z.record(z.string(), z.unknown()).default({})

/** `world.yaml`: what there is before anything happens. */
export const worldShape = z.strictObject({
  description: z.string(),
  seed: z.int().default(1),
  hosts: z.array(
    z.strictObject({
      name: z.string(),
      labels: z.record(z.string(), z.string()).default({}),
      cpus: z.int().default(8),
      memory: z.string().default('16Gi'),
      spec,
    }),
  ),
  pools: z
    .array(z.strictObject({ name: z.string(), shared: z.boolean() }))
    .default([{ name: 'default', shared: true }]),
  machines: z.array(
    z.strictObject({ name: z.string(), labels: z.record(z.string(), z.string()).default({}), spec }),
  ),
})
export type WorldFile = z.output<typeof worldShape>

const expected = z.strictObject({
  phase: strings.optional(),
  reason: strings.optional(),
  host: strings.optional(),
  /** Hosts on which its guest runs in truth. */
  runs: z.array(z.string()).optional(),
  message: z.string().optional(),
  /** How often its QEMU was started after the first time. */
  restarts: z.int().optional(),
})

/** `script.yaml`: what happens, and what has to be so, in order of time (seconds of the world). */
export const scriptShape = z.array(
  z.strictObject({
    at: z.number(),
    /** A fault of `faults.ts`. */
    do: z.record(z.string(), z.unknown()).optional(),
    /** Not at once, but at the nth call of a host to the store that fits. */
    on: z
      .strictObject({
        by: z.string(),
        op: z.enum(['get', 'list', 'put', 'delete']),
        key: z.string(),
        phase: z.enum(['send', 'answer']),
        nth: z.int().default(1),
      })
      .optional(),
    /** A manifest, created or, where it is there, given this spec. */
    apply: z.record(z.string(), z.unknown()).optional(),
    expect: z.record(z.string(), expected).optional(),
    /** Conditions of hosts: `True`, or with their reason `False/Stopping`. */
    hosts: z.record(z.string(), z.record(z.string(), z.string())).optional(),
    /** Every machine is as it should be. */
    settled: z.literal(true).optional(),
  }),
)
export type Script = z.output<typeof scriptShape>

const defaultMachine = { disks: [{ name: 'root', size: '1Gi' }], terminationGracePeriodSeconds: 5 }

function objectOf<T extends KubeObject>(
  kind: ResourceDefinition<T>,
  metadata: KubeObject['metadata'],
  body: Readonly<Record<string, unknown>>,
): T {
  return {
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    metadata,
    ...kind.body.parse(body),
  } as unknown as T
}

async function populate(world: World, file: WorldFile): Promise<void> {
  const { objects } = world
  for (const { name, shared } of file.pools)
    await objects.create(
      StoragePool,
      objectOf(StoragePool, { name }, { spec: { path: `/pools/${name}`, shared } }),
    )
  for (const { name, labels, spec: given } of file.hosts)
    await objects.create(
      Host,
      objectOf(Host, { name, labels }, { spec: { fencing: { mode: 'guard' }, ...given } }),
    )
  await world.begin()
  for (const { name, labels, spec: given } of file.machines)
    await objects.create(
      VirtualMachine,
      objectOf(
        VirtualMachine,
        { name, namespace: 'default', labels },
        { spec: { ...defaultMachine, recovery: { onHostLoss: 'Failover' }, ...given } },
      ),
    )
}

async function apply(world: World, manifest: Readonly<Record<string, unknown>>): Promise<void> {
  const kind = findKind(String(manifest['kind'])) as
    | ResourceDefinition<KubeObject & { spec?: object }>
    | undefined
  if (!kind) throw new PlasmaError('BadScript', `apply: there is no kind ${manifest['kind']}`)
  const metadata = manifest['metadata'] as KubeObject['metadata']
  const object = objectOf(kind, metadata, { spec: manifest['spec'] ?? {} })
  try {
    await world.objects.create(kind, object)
  } catch (error) {
    if (!isReason(error, 'AlreadyExists')) throw error
    const before = await world.objects.get(kind, metadata)
    const merged = { ...before.spec, ...(manifest['spec'] as object) }
    await world.objects.update(kind, { ...before, ...kind.body.parse({ spec: merged }) })
  }
}

/** @throws PlasmaError `NotAsExpected` */
function check(world: World, at: number, wanted: NonNullable<Script[number]['expect']>): void {
  for (const [name, want] of Object.entries(wanted)) {
    const vm = [...world.rules.vms.values()].find(({ metadata }) => metadata.name === name)
    const { phase, reason, hostName = 'none', message = '', restarts } = vm?.status ?? {}
    const runs = world.rules.runners(vm?.metadata.uid ?? '').map((host) => host.name)
    const wrong = (what: string, found: unknown, words: unknown) => {
      throw new PlasmaError('NotAsExpected', `at ${at} s ${name}: ${what} is ${found}, expected ${words}`)
    }
    if (want.phase && !want.phase.includes(phase ?? 'none'))
      wrong('phase', `${phase} (${reason}: ${message})`, want.phase)
    if (want.reason && !want.reason.includes(reason ?? 'none')) wrong('reason', reason, want.reason)
    if (want.host && !want.host.includes(hostName)) wrong('host', hostName, want.host)
    if (want.runs && want.runs.join() !== runs.join())
      wrong('running on', runs.join() || 'no host', want.runs)
    if (want.restarts !== undefined && want.restarts !== restarts) wrong('restarts', restarts, want.restarts)
    if (want.message && !message.includes(want.message)) wrong('message', message, want.message)
  }
}

/** @throws PlasmaError `NotAsExpected` */
async function checkHosts(world: World, at: number, wanted: NonNullable<Script[number]['hosts']>) {
  for (const [name, conditions] of Object.entries(wanted)) {
    const { status } = await world.objects.get(Host, { name })
    for (const [type, want] of Object.entries(conditions)) {
      const is = status?.conditions.find((one) => one.type === type)
      const found = want.includes('/') ? `${is?.status}/${is?.reason}` : is?.status
      if (found === want) continue
      const message = `at ${at} s ${name}: ${type} is ${is?.status}/${is?.reason} (${is?.message}), expected ${want}`
      throw new PlasmaError('NotAsExpected', message)
    }
  }
}

/** Whole seconds: a log that told of milliseconds would change with every change of anything. */
const shortTime = (line: string) =>
  line.replace(/^ *(\d+)\.\d+ /, (_, seconds: string) => `${seconds.padStart(4)} s`)

/**
 * Plays a scenario. @returns its log
 * @throws Violation where a safety rule did not hold; PlasmaError `NotAsExpected` where the script expects something else
 */
export async function playScenario(
  file: WorldFile,
  script: Script,
  parts: HostParts,
  log: string[] = [],
): Promise<string[]> {
  const world = new World({
    seed: file.seed,
    hosts: file.hosts,
    parts,
    tell: (line) => log.push(shortTime(line)),
  })
  const faults = new Faults(world)
  faults.bearable = false
  chronicle(world)
  await populate(world, file)
  for (const { at, do: given, on, apply: manifest, expect, hosts, settled } of script) {
    await world.run(at * 1_000)
    const fault = given as unknown as Fault | undefined
    if (fault && on) faults.schedule([{ after: 0, ...on, fault }])
    else if (fault) faults.apply(fault)
    if (manifest) {
      world.tell(`applied: ${JSON.stringify(manifest)}`)
      await apply(world, manifest)
    }
    if (expect) check(world, at, expect)
    if (hosts) await checkHosts(world, at, hosts)
    const why = settled && world.rules.unsettled()
    if (why) throw new PlasmaError('NotAsExpected', `at ${at} s: ${why}`)
    world.rules.check()
  }
  return log
}

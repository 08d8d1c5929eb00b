import { PlasmaError } from '../lib/errors.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { type Client, connect } from './client.ts'
import type { CommandModule } from './command.ts'
import type { DrainItem } from './drain-plan.ts'
import { Draining, type Settled } from './draining.ts'
import { counted, getHost, hostKind, hostName, keyOf, listAll, patchSpec } from './hosts.ts'
import type { Invocation, Io } from './io.ts'
import { nameOf } from './kinds.ts'
import { durationMs, formatOf } from './options.ts'
import { renderObject } from './output.ts'

interface Options {
  readonly timeout?: string
  readonly force?: boolean
  readonly output?: string
}

/** All that says where the machines of a host may go. */
async function worldOf(client: Client, io: Io) {
  const [machines, hosts, pools, leases] = await Promise.all([
    listAll<VirtualMachine>(client, 'vms'),
    listAll(client, 'hosts'),
    listAll(client, 'sp'),
    listAll(client, 'leases'),
  ])
  const world = {
    machines: machines.items.map((vm) => ({ ...vm, status: filled(vm.status) })),
    hosts: hosts.items,
    pools: pools.items,
    leases: new Map(leases.items.map((lease) => [lease.metadata.name, lease])),
    now: io.clock.now(),
  }
  // The server has put defaults into all of them.
  return world as unknown as Parameters<typeof import('./drain-plan.ts').drainPlan>[0]
}

const filled = (status: VirtualMachine['status']) =>
  status && { ...status, disks: status.disks ?? [], conditions: status.conditions ?? [] }

function requireOther(items: readonly unknown[], name: string, force: boolean): void {
  if (items.length > 1 || force) return
  throw new PlasmaError('NoOtherHost', `host ${name} is the only one: its machines have nowhere to go`, {
    hint: `to place no more machines on it: plasmavmc cordon ${name}; to shut down those that run: plasmavmc drain ${name} --force`,
  })
}

interface Outcome {
  readonly machine: string
  readonly outcome: string
  readonly message: string
}

const outcomeOf = ({ vm, fate, why }: DrainItem): Outcome => ({
  ...{ machine: keyOf(vm), outcome: fate === 'rest' ? 'down' : 'stays', message: why },
})

/** What is left undone, as an error; undefined where the host is drained. */
function undone(name: string, outcomes: readonly Outcome[], items: readonly DrainItem[]) {
  const bad = outcomes.filter(({ outcome }) => ['stays', 'nowhere', 'late'].includes(outcome))
  if (bad.length === 0) return undefined
  const named = bad.slice(0, 10).map(({ machine, message }) => `\n  ${machine}: ${message}`)
  const more = bad.length > named.length ? `\n  and ${bad.length - named.length} more` : ''
  const forced = items.some(({ forceable }) => forceable)
  const force = forced
    ? `; to shut down those whose disks are here only: plasmavmc drain ${name} --force`
    : ''
  return new PlasmaError(
    'NotDrained',
    `host ${name} is not drained because of ${counted(bad.length, 'machine')}:${named.join('')}${more}`,
    { hint: `the host stays cordoned; to undo: plasmavmc uncordon ${name}${force}` },
  )
}

async function run({ args, options }: Invocation<Options>, io: Io): Promise<number> {
  const name = hostName(args)
  const timeoutMs = durationMs(options.timeout ?? '10m')
  const force = options.force === true
  const format = formatOf(options.output, ['json', 'yaml'])
  const client = connect(options, io)
  const say = (text: string) => void (format === undefined && io.stdout.write(`${text}\n`))
  const host = await getHost(client, name)
  const [world, { drainPlan }] = await Promise.all([worldOf(client, io), import('./drain-plan.ts')])
  requireOther(world.hosts, name, force)
  if (host.spec?.unschedulable) say(`${nameOf(hostKind, name)} already cordoned`)
  else {
    await patchSpec(client, name, { unschedulable: true })
    say(`${nameOf(hostKind, name)} cordoned`)
  }
  // Again, now that nothing new can come.
  const items = drainPlan(await worldOf(client, io), name, force)
  const idle = items.filter(({ fate }) => fate === 'rest' || fate === 'stay')
  for (const { vm, fate, why } of idle)
    say(`${keyOf(vm)} ${fate === 'rest' ? 'is down, and stays' : 'stays'}: ${why}`)
  const busy = items.filter((item) => !idle.includes(item))
  const draining = new Draining({ client, name, items: busy, timeoutMs, say, io })
  const settled = await draining.run()
  const outcomes = [...idle.map(outcomeOf), ...settled.map(outcomeOfSettled)]
  const error = undone(name, outcomes, items)
  const result = { host: name, drained: error === undefined, machines: outcomes }
  if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(result, format))
  client.close()
  if (error) throw error
  say(`${nameOf(hostKind, name)} drained`)
  return 0
}

const outcomeOfSettled = ({ key, over, text }: Settled): Outcome => ({
  machine: key,
  outcome: over,
  message: text,
})

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('<host>', 'host')
      .option('--timeout <duration>', 'longest wait, such as 30m; default 10m')
      .option('--force', 'shut down the machines that can’t run elsewhere')
      .option('-o, --output <format>', 'json or yaml'),
  examples: ['drain a', 'drain a --force --timeout 30m'],
  run,
}

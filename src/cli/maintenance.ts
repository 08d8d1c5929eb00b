import { rfc3339 } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { hostLeaseName, systemNamespace } from '../resources/host-lease.ts'
import { awaitObject } from './await.ts'
import { type Client, connect } from './client.ts'
import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import { getHost, getLease, hostKind, hostName, patchSpec } from './hosts.ts'
import type { Invocation, Io } from './io.ts'
import { kindOf, nameOf } from './kinds.ts'
import { durationMs, formatOf } from './options.ts'
import { age, renderObject } from './output.ts'
import { progressLine } from './progress.ts'
import type { ObjectView } from './targets.ts'

interface Options {
  readonly for?: string
  readonly reason?: string
  readonly end?: boolean
  readonly output?: string
}

/** A guard renews every few seconds; a server that is slow may take its time. */
const announcedWithinMs = 30_000

function forMs(options: Options): number | undefined {
  if (options.end) {
    const stray = options.for !== undefined ? '--for' : options.reason !== undefined ? '--reason' : undefined
    if (stray) throw new UsageError(`${stray} goes without --end`)
    return undefined
  }
  if (options.for === undefined) throw new UsageError('--for is missing', 'such as --for 30m; or --end')
  const ms = durationMs(options.for)
  if (ms > 0) return ms
  throw new UsageError(`--for: ${options.for} is no time to come`, 'such as --for 30m')
}

const announced = (lease: ObjectView | undefined) => lease?.metadata.annotations?.['plasmavmc.io/maintenance']

/** Waits until the host's lease says what its Host does. @returns false where the host has no lease */
async function untilAnnounced(client: Client, name: string, until: string | undefined, io: Io) {
  const same = (said: string | undefined) =>
    until === undefined ? said === undefined : said !== undefined && Date.parse(said) === Date.parse(until)
  const lease = await getLease(client, name)
  if (!lease?.spec?.holderIdentity) return false
  const progress = progressLine(io)
  progress.show(`waiting for the guard of ${name} to say so in its lease`)
  const where = { kind: kindOf('leases'), namespace: systemNamespace, name: hostLeaseName(name) }
  try {
    await awaitObject(
      client,
      {
        ...{ ...where, timeoutMs: announcedWithinMs, what: 'the guard' },
        done: (object) => same(announced(object)),
        describe: (object) => `at "${announced(object) ?? ''}"`,
      },
      io,
    )
  } catch (error) {
    if (!(error instanceof PlasmaError && error.code === 'Timeout')) throw error
    const effect =
      until === undefined
        ? 'the host is in maintenance until its guard does'
        : 'until it does, the host is watched, and stops its machines, as before'
    throw new PlasmaError(
      'NotAnnounced',
      `it is written to host ${name}, but its guard did not say so in its lease within ${announcedWithinMs / 1000} s: ${effect}`,
      { hint: `see 'plasmavmc describe host ${name}'` },
    )
  } finally {
    progress.end()
  }
  return true
}

async function run({ args, options }: Invocation<Options>, io: Io): Promise<number> {
  const name = hostName(args)
  const ms = forMs(options)
  const format = formatOf(options.output, ['json', 'yaml', 'name'])
  const client = connect(options, io)
  const until = ms === undefined ? undefined : rfc3339(io.clock.now() + ms)
  const before = await getHost(client, name)
  const maintenance = until === undefined ? null : { until, reason: options.reason ?? '' }
  const had = before.spec?.maintenance !== undefined
  const host = until === undefined && !had ? before : await patchSpec(client, name, { maintenance })
  const watched = await untilAnnounced(client, name, until, io)
  client.close()
  if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(host, format))
  else if (format === 'name') io.stdout.write(`${nameOf(hostKind, name)}\n`)
  else io.stdout.write(`${nameOf(hostKind, name)} ${wordsFor({ name, until, had, watched, ms })}\n`)
  return 0
}

interface Said {
  readonly name: string
  readonly until: string | undefined
  readonly ms: number | undefined
  readonly had: boolean
  readonly watched: boolean
}

function wordsFor({ name, until, ms = 0, had, watched }: Said): string {
  if (until === undefined) return had ? 'is out of maintenance' : 'was not in maintenance'
  const nobody = watched ? '' : ' It holds no lease: nothing watches it anyway.'
  return `is in maintenance until ${until} (${age(ms)}): it stops no machine, and is not taken for lost.${nobody} To end it: plasmavmc maintenance ${name} --end`
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('<host>', 'host')
      .option('--for <duration>', 'how long, such as 30m')
      .option('--reason <text>', 'why, for those who look at it')
      .option('--end', 'end it')
      .option('-o, --output <format>', 'json, yaml or name'),
  examples: ["maintenance a --for 30m --reason 'new switch'", 'maintenance a --end'],
  run,
}

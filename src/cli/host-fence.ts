import { hostname, userInfo } from 'node:os'
import { readCredentials } from '../auth/credentials.ts'
import { rfc3339 } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { fencedHolder } from '../resources/host-lease.ts'
import { type Client, connect } from './client.ts'
import { isServerError, UsageError } from './failure.ts'
import { getLease, type LeaseView, listAll, placeOf } from './hosts.ts'
import type { GlobalOptions, Io } from './io.ts'
import { apiVersionOf, kindOf, nameOf, pathOf } from './kinds.ts'
import { promiseOf, requireSilence } from './lease-silence.ts'
import { durationMs, formatOf } from './options.ts'
import { renderObject } from './output.ts'
import { selfReview } from './review.ts'
import { Taking } from './taking.ts'
import type { ListView, ObjectView } from './targets.ts'

export interface FenceOptions extends GlobalOptions {
  readonly confirmOff?: boolean
  readonly reason?: string
  readonly timeout?: string
  readonly output?: string
}

const evidenceKind = kindOf('fenceevidences')

const explanation = (host: string) => `host fence ${host}: nothing was done
By this command you say that ${host} is off. Its machines with spec.recovery.onHostLoss: Failover are then started on
other hosts. If ${host} still runs them, each of them runs twice and destroys its disks.
First switch it off, and see that it is: at its button, its management controller, or its hypervisor.`

function userName(io: Io): string {
  try {
    return userInfo().username
  } catch {
    // Of no user that this machine knows.
    return `uid ${io.uid}`
  }
}

/** Who says so: the access key that signs it, or whom the server takes us for, and the user and machine it is said from. */
async function speaker(client: Client, io: Io): Promise<string> {
  const { dataDir } = client.connection
  const who = dataDir === '' ? await userOf(client) : readCredentials(dataDir, io.env).accessKeyId
  return `${who} (${io.env['SUDO_USER'] || userName(io)}@${hostname()})`
}

/** The user that a kubeconfig makes us, as its server says. */
async function userOf(client: Client): Promise<string> {
  return (await selfReview(client)).status.userInfo.username
}

interface Claim {
  readonly host: string
  readonly lease: LeaseView
  readonly silentMs: number
  readonly by: string
  readonly reason: string | undefined
  readonly at: string
}

/** The evidence of a person's word; the leader takes it only while the lease is still the one it names. */
export function claimed({ host, lease, silentMs, by, reason, at }: Claim) {
  const { holderIdentity: holder, leaseTransitions: epoch = 0, renewTime } = lease.spec ?? {}
  const promise = promiseOf(lease)
  const neededMs = typeof promise === 'string' ? undefined : promise.deadlineMs + promise.stopMs
  const said = `said to be off${reason ? `: ${reason}` : ''}`
  return {
    apiVersion: apiVersionOf(evidenceKind),
    kind: evidenceKind.kind,
    metadata: { name: `${host}-${epoch + 1}` },
    spec: {
      ...{ host, epoch: epoch + 1, proof: 'Operator', by, at, silentMs, votes: [] },
      ...(neededMs !== undefined && { neededMs }),
      lease: {
        ...(holder !== undefined && { holder }),
        ...{ epoch, resourceVersion: lease.metadata.resourceVersion ?? '' },
        ...(renewTime !== undefined && { renewTime }),
      },
      seen: `${said}; its lease was not seen to change for ${silentMs} ms`,
    },
  }
}

async function store(client: Client, evidence: ReturnType<typeof claimed>): Promise<ObjectView> {
  const { name } = evidence.metadata
  try {
    return await client.json<ObjectView>('POST', pathOf(evidenceKind), { body: evidence })
  } catch (error) {
    if (!isServerError(error, 'AlreadyExists')) throw error
    throw new PlasmaError('AlreadyExists', `fenceevidence ${name} is there already: somebody was faster`, {
      hint: `see 'plasmavmc get fenceevidence ${name} -o yaml', and repeat`,
    })
  }
}

/** Whether a person's word took this lease already: then nothing more is to be said. */
async function alreadySaid(client: Client, host: string, lease: LeaseView): Promise<ObjectView | undefined> {
  if (lease.spec?.holderIdentity !== fencedHolder) return undefined
  const { items } = await listAll<ObjectView>(client, 'fenceevidences')
  return items.find(
    ({ spec }) =>
      spec?.['host'] === host &&
      spec['epoch'] === lease.spec?.leaseTransitions &&
      (spec['proof'] === 'Operator' || spec['proof'] === 'Command'),
  )
}

async function leaseToTake(client: Client, host: string): Promise<LeaseView> {
  const lease = await getLease(client, host)
  if (lease) return lease
  // Says that there is none by that name, where so it is.
  await client.json('GET', pathOf(kindOf('hosts'), undefined, host))
  throw new PlasmaError('NoLease', `host ${host} has no lease: there is nothing to take from it`, {
    hint: 'hosts have leases where they share a store (--store etcd); with an embedded store there is one host',
  })
}

async function machinesOn(client: Client, host: string): Promise<readonly ObjectView[]> {
  const { items } = await client.json<ListView>('GET', pathOf(kindOf('vm')))
  return items.filter((vm) => placeOf(vm) === host)
}

/** `host fence NAME`: stores a person's word that a host is off, and waits until its machines were taken. */
export async function fence(host: string, options: FenceOptions, io: Io): Promise<number> {
  if (!options.confirmOff)
    throw new UsageError(explanation(host), `Then: plasmavmc host fence ${host} --confirm-off --reason '…'`)
  const timeoutMs = durationMs(options.timeout ?? '5m')
  const format = formatOf(options.output, ['json', 'yaml'])
  const client = connect(options, io)
  const say = (text: string) => void (format === undefined && io.stdout.write(`${text}\n`))
  const first = await leaseToTake(client, host)
  let evidence = await alreadySaid(client, host, first)
  let machines = evidence ? await machinesOn(client, host) : []
  if (evidence) say(`${nameOf(evidenceKind, evidence.metadata.name)} was stored before`)
  else {
    const { lease, silentMs } = await requireSilence(client, host, first, io).catch((error: unknown) => {
      if (io.signal.aborted) io.stderr.write('stopped: nothing was stored\n')
      throw error
    })
    // Before the word is stored: the leader may be quick.
    machines = await machinesOn(client, host)
    const by = await speaker(client, io)
    const at = rfc3339(io.clock.now())
    evidence = await store(client, claimed({ host, lease, silentMs, by, reason: options.reason, at }))
    say(`${nameOf(evidenceKind, evidence.metadata.name)} stored`)
  }
  if (machines.length === 0) say(`host ${host} has no machines`)
  const about = { evidence: evidence.metadata.name, epoch: Number(evidence.spec?.['epoch']) }
  const taking = new Taking({ client, host, ...about, machines, timeoutMs, say, io })
  await taking.run()
  if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(evidence, format))
  client.close()
  return 0
}

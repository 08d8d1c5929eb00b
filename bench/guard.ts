import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { loadConfig } from '../src/config.ts'
import { hostIdAnnotation } from '../src/controllers/host/register.ts'
import { hostClock } from '../src/host/guard-clock.ts'
import { favour } from '../src/host/guard-favour.ts'
import { type GuardRecord, readGuardRecord } from '../src/host/guard-file.ts'
import { hostIdOf } from '../src/host/host-id.ts'
import { Procfs } from '../src/host/procfs.ts'
import { systemClock } from '../src/lib/clock.ts'
import { apiVersionOf } from '../src/resources/define.ts'
import { hostSpec } from '../src/resources/host.ts'
import { Host } from '../src/resources/kinds.ts'
import { openEtcd } from '../src/store/etcd.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { guardFlags } from '../src/wire-guard-settings.ts'
import { EtcdLab } from '../test/fakes/etcd-server.ts'
import { packed, pause } from './lab.ts'
import { type Figure, median, ms } from './stats.ts'

const rounds = 7
/** Busy loops on the one processor that the guard gets, beside it. */
const neighbours = 5
const longestMs = 60_000
const bootId = new Procfs().bootId()

/** What a start took until something was so, ms. */
interface Took {
  readonly wall: number
  readonly cpu: number
}

interface Start {
  /** Until the guard had taken up what the one before had promised: from then on it stops machines when it must. */
  readonly inPlace: Took
  /** Until its first renewal succeeded. */
  readonly renewed: Took
}

/** How a guard is started. */
interface Way {
  readonly command: readonly string[]
  /** As a server starts it: with the processor before others from its first moment. */
  readonly favoured: boolean
}

/** A host without a server, whose guard is started again and again. */
class Lab {
  readonly dir: string
  readonly etcd: EtcdLab
  readonly flags: readonly string[]
  readonly runDir: string

  private constructor(dir: string, etcd: EtcdLab, flags: readonly string[]) {
    this.dir = dir
    this.etcd = etcd
    this.flags = flags
    this.runDir = join(dir, 'r')
  }

  static async start(): Promise<Lab> {
    const dir = await mkdtemp(join(tmpdir(), 'pvbench-'))
    const [dataDir, runDir] = [join(dir, 'd'), join(dir, 'r')]
    for (const folder of [dataDir, runDir]) mkdirSync(folder)
    const etcd = await EtcdLab.start()
    const kv = await openEtcd({ endpoints: etcd.endpoints })
    const annotations = { [hostIdAnnotation]: hostIdOf(dataDir) }
    await new KvObjects(kv, { clock: systemClock, newUid: randomUUID }).create(Host, {
      ...{ apiVersion: apiVersionOf(Host), kind: 'Host', spec: hostSpec.parse({}) },
      metadata: { name: 'a', annotations },
    })
    await kv.close()
    const store = { store: 'etcd', etcdEndpoints: etcd.endpoints.join(',') }
    // No start comes near the deadline: a guard that is late is to be measured, not to fence.
    const terms = { leaseDuration: '100', leaseDeadline: '60', leaseRenew: '0.1' }
    const given = { ...store, ...terms, dataDir, runDir, hostName: 'a', peerListen: '127.0.0.1:0' }
    return new Lab(dir, etcd, guardFlags(loadConfig(given, {}, { uid: 0 })))
  }

  /** One start on the first processor alone, then SIGKILL. */
  async measure({ command, favoured }: Way): Promise<Start> {
    const began = performance.now()
    const since = hostClock.elapsed()
    // It dies with us, however we end.
    const alone = ['--pdeathsig', 'KILL', 'taskset', '-c', '0']
    const child = spawn('setpriv', [...alone, ...command, 'guard', ...this.flags], {
      ...{ stdio: 'ignore', detached: true },
    })
    if (favoured && child.pid !== undefined) favour(child.pid)
    try {
      const inPlace = await this.#until(child, began, () => true)
      const renewed = await this.#until(child, began, ({ sentAt = 0 }) => sentAt > since)
      return { inPlace, renewed }
    } finally {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  }

  async #until(child: ChildProcess, began: number, so: (record: GuardRecord) => boolean): Promise<Took> {
    for (;;) {
      const record = readGuardRecord(this.runDir, bootId)
      const wall = performance.now() - began
      if (record && record.pid === child.pid && so(record)) return { wall, cpu: cpuOf(record.pid) }
      if (wall > longestMs || child.exitCode !== null) throw new Error('the guard does not renew its lease')
      await pause(2)
    }
  }

  async close(): Promise<void> {
    await this.etcd.close()
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Processor time of all threads of a process so far, ms. */
function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** Runs `work` beside busy loops on the first processor. */
async function crowded<T>(work: () => Promise<T>): Promise<T> {
  const loops = Array.from({ length: neighbours }, () =>
    spawn('setpriv', ['--pdeathsig', 'KILL', 'taskset', '-c', '0', 'sh', '-c', 'while :; do :; done'], {
      ...{ stdio: 'ignore', detached: true },
    }),
  )
  try {
    return await work()
  } finally {
    for (const loop of loops) loop.kill('SIGKILL')
  }
}

/** Starts of both, in turn, so that both meet the same machine. */
async function inTurn(lab: Lab, ways: readonly [Way, Way]): Promise<[Start[], Start[]]> {
  const starts: [Start[], Start[]] = [[], []]
  for (let round = 0; round < rounds; round += 1)
    for (const side of [0, 1] as const) starts[side].push(await lab.measure(ways[side]))
  return starts
}

function compared([ours, whole]: [Start[], Start[]], of: (start: Start) => number): string {
  const [a, b] = [median(ours.map(of)), median(whole.map(of))]
  return `${(a / b).toFixed(2)} × (${ms(a)} / ${ms(b)})`
}

/** A guard as a server starts it, against the command `guard` of the whole program. */
export async function guard(): Promise<Figure[]> {
  const command = packed()
  const entry = [...command.slice(0, -1), join(dirname(command.at(-1) ?? ''), 'guard.js')]
  const lab = await Lab.start()
  try {
    const ways = [
      { command: entry, favoured: true },
      { command, favoured: false },
    ] as const
    // Compiled code is kept from the first start on.
    for (const way of ways) for (let i = 0; i < 2; i += 1) await lab.measure(way)
    const quiet = await inTurn(lab, ways)
    const loaded = await crowded(() => inTurn(lab, ways))
    const busy = `beside ${neighbours} busy loops`
    const goal = '≤ 0.7 ×'
    return [
      {
        what: 'guard: CPU until its first renewal, against `guard` of the whole program',
        value: compared(quiet, (s) => s.renewed.cpu),
        goal: '≤ 0.9 ×',
      },
      {
        what: 'guard: start until it keeps what the one before promised',
        value: compared(quiet, (s) => s.inPlace.wall),
        goal,
      },
      { what: 'guard: start until its first renewal', value: compared(quiet, (s) => s.renewed.wall), goal },
      {
        what: `guard: start until it keeps what the one before promised, ${busy}`,
        value: compared(loaded, (s) => s.inPlace.wall),
        goal: '≤ 0.5 ×',
      },
      {
        what: `guard: start until its first renewal, ${busy}`,
        value: compared(loaded, (s) => s.renewed.wall),
        goal: '≤ 0.5 ×',
      },
    ]
  } finally {
    await lab.close()
  }
}

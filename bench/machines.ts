import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../src/lib/clock.ts'
import { connectQmp } from '../src/qmp/connect.ts'
import type { VirtualMachine } from '../src/resources/vm.ts'
import { pause, Server, tiny, vmsPath, Watched } from './lab.ts'
import { type Figure, median, ms, percentile, repeat } from './stats.ts'

const named = (name: string) => (vm: VirtualMachine) =>
  vm.metadata.name === name && vm.status?.phase === 'Running'

/** Starts the same QEMU by hand, in a folder of its own, until QMP says it runs. @returns ms */
async function bareStart(argv: readonly string[], from: string, to: string): Promise<number> {
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to, { recursive: true })
  const args = argv.map((word) => word.replaceAll(from, to))
  const began = performance.now()
  const child = spawn(args[0] ?? '', args.slice(1), { stdio: 'ignore', detached: true })
  const session = await connectQmp(join(to, 'qmp.sock'), {
    clock: systemClock,
    waitMs: 10_000,
    handshakeMs: 10_000,
  })
  await session.execute('cont')
  await session.execute('query-status')
  const took = performance.now() - began
  session.close()
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
  return took
}

/** Create to Running, SIGKILL to status and to replacement, each against a bare start in the same run. */
export async function startAndKill(): Promise<Figure[]> {
  const server = await Server.make()
  try {
    await server.start()
    const client = server.client()
    const watched = new Watched(client)
    const [starts, bare, seen, replaced]: number[][] = [[], [], [], []]
    await repeat(20, async (i) => {
      const name = `m${i}`
      const running = watched.until(named(name))
      const began = performance.now()
      await client.json('POST', vmsPath, { body: tiny(name) })
      starts?.push((await running) - began)
      const vm = await client.json<VirtualMachine>('GET', `${vmsPath}/${name}`)
      const folder = join(server.runDir, 'vms', vm.metadata.uid ?? '')
      const record = JSON.parse(readFileSync(join(folder, 'launch.json'), 'utf8')) as { argv: string[] }
      bare?.push(await bareStart(record.argv, folder, join(server.dir, 'bare')))
      const launchId = vm.status?.process?.launchId
      const gone = watched.until(
        (now) => now.metadata.name === name && now.status?.lastExit?.launchId === launchId,
      )
      const back = watched.until((now) => named(name)(now) && now.status?.process?.launchId !== launchId)
      const killed = performance.now()
      process.kill(vm.status?.process?.pid ?? 0, 'SIGKILL')
      seen?.push((await gone) - killed)
      replaced?.push((await back) - killed)
      await client.json('DELETE', `${vmsPath}/${name}`)
      return 0
    })
    watched.stop()
    client.close()
    const base = median(bare ?? [])
    const ratio = (samples: readonly number[] = []) =>
      `${(median(samples) / base).toFixed(2)} × (${ms(median(samples))} / ${ms(base)})`
    return [
      { what: 'create → status Running, against a bare start', value: ratio(starts), goal: '≤ 1.3 ×' },
      {
        what: 'SIGKILL of QEMU → status shows it',
        value: `p50 ${ms(median(seen ?? []))}, p99 ${ms(percentile(seen ?? [], 0.99))}`,
        goal: 'p99 ≤ 50 ms',
      },
      {
        what: 'SIGKILL of QEMU → replacement Running, against a bare start',
        value: ratio(replaced),
        goal: '≤ 1.5 ×',
      },
    ]
  } finally {
    await server.close()
  }
}

function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

/** A hundred running machines: adoption after a restart, and what an idle server costs. */
export async function hundred(count = 100): Promise<Figure[]> {
  const server = await Server.make()
  try {
    await server.start()
    const client = server.client()
    for (let i = 0; i < count; i += 1) await client.json('POST', vmsPath, { body: tiny(`m${i}`) })
    for (;;) {
      const list = await client.json<{ items: VirtualMachine[] }>('GET', vmsPath)
      if (list.items.every((vm) => vm.status?.phase === 'Running')) break
      await pause(200)
    }
    client.close()
    const before = server.qemus().sort().join()
    await pause(15_000)
    const restarts = await repeat(5, async (i) => {
      await server.stop(i % 2 ? 'SIGTERM' : 'SIGKILL')
      return server.start()
    })
    const same = server.qemus().sort().join() === before
    const pid = server.child?.pid ?? 0
    await pause(5_000)
    const ticks = cpuTicks(pid)
    await pause(20_000)
    const percent = (cpuTicks(pid) - ticks) / 20
    return [
      {
        what: `server restart with ${count} QEMUs → all adopted, QMP answered`,
        value: `p50 ${ms(median(restarts))}, max ${ms(Math.max(...restarts))}, pids ${same ? 'the same' : 'CHANGED'}`,
        goal: '≤ 1 s',
      },
      {
        what: `idle server with ${count} machines`,
        value: `${percent.toFixed(1)} % of a core, ${Math.round(rssMiB(pid))} MiB`,
        goal: '≤ 2 %, ≤ 150 MB',
      },
    ]
  } finally {
    await server.close()
  }
}

import { readFileSync } from 'node:fs'
import type { Client } from '../src/cli/client.ts'
import { lease, leasesPath, leasesPerSecond } from './api.ts'
import { packed, pause, Server, tiny, vmsPath } from './lab.ts'
import { type Figure, median, ms, percentile, repeat } from './stats.ts'
import { signed, Wire } from './wire.ts'

/** Resident memory of a process, MB. */
function residentMb(pid: number | undefined): number {
  const [, kb = '0'] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kb) / 1000
}

/** From a create until each of so many watchers was shown it, ms: every delay of every watcher. */
async function delays(server: Server, writer: Wire, watchers: number, creates: number): Promise<number[]> {
  const wires = await Promise.all(Array.from({ length: watchers }, () => Wire.open(server)))
  const watches = wires.map((wire) => wire.watch(signed(server, 'GET', `${leasesPath}?watch=true`)))
  const shown = async (name: string) => {
    const request = signed(server, 'POST', leasesPath, lease(name))
    const all = watches.map((until) => until(`"${name}"`))
    const began = performance.now()
    await writer.create(request)
    return (await Promise.all(all)).map((at) => at - began)
  }
  // The first one waits until all watches are there.
  await shown(`w${watchers}-first`)
  const found: number[] = []
  for (let i = 0; i < creates; i += 1) found.push(...(await shown(`w${watchers}-${i}`)))
  for (const wire of wires) wire.close()
  return found
}

const told = (found: readonly number[]) => `p50 ${ms(median(found))}, p99 ${ms(percentile(found, 0.99))}`

/** The admin API of a packed server on LMDB: start, signed creates, watchers, memory. */
export async function admin(): Promise<Figure[]> {
  const command = packed()
  const starts = await repeat(5, async () => {
    const server = await Server.make({ command })
    try {
      return await server.start()
    } finally {
      await server.close()
    }
  })
  const server = await Server.make({ command })
  try {
    await server.start()
    const wires = await Promise.all(Array.from({ length: 16 }, () => Wire.open(server)))
    const [first] = wires
    if (!first) throw new Error('no client')
    await leasesPerSecond(server, wires, 300)
    const perSecond = await leasesPerSecond(server, wires, 300)
    const [single, hundred] = [await delays(server, first, 1, 200), await delays(server, first, 100, 50)]
    for (const wire of wires) wire.close()
    return [
      { what: 'server ready after its start', value: ms(median(starts)), goal: '≤ 0.7 s' },
      { what: 'creates/s of Leases, 16 clients', value: String(Math.round(perSecond)), goal: '≥ 2,500' },
      { what: 'create → event, 1 watcher', value: told(single), goal: 'p50 ≤ 3 ms' },
      { what: 'create → event, 100 watchers', value: told(hundred), goal: 'p50 ≤ 5 ms' },
      { what: 'memory with 10,000 machines', value: await memory(command), goal: '≤ 200 MB' },
    ]
  } finally {
    await server.close()
  }
}

/** Of a server that has done nothing else: what a hundred watchers leave behind goes with the next collection only. */
async function memory(command: readonly string[]): Promise<string> {
  const server = await Server.make({ command })
  try {
    await server.start()
    const clients = Array.from({ length: 16 }, () => server.client())
    for (let next = 0; next < 10_000; )
      await Promise.all(
        clients.map((client) => client.json('POST', vmsPath, { body: tiny(`m${next++}`, 'Halted') })),
      )
    const made = residentMb(server.child?.pid)
    if (clients[0]) await settled(clients[0])
    const listed = residentMb(server.child?.pid)
    for (const client of clients) client.close()
    return `${Math.round(made)} MB, ${Math.round(listed)} MB after lists of all`
  } finally {
    await server.close()
  }
}

/** The controller's own writes for new machines have ended. */
async function settled(client: Client): Promise<void> {
  for (;;) {
    const list = await client.json<{ items: { status?: { phase?: string } }[] }>('GET', vmsPath)
    if (list.items.every((vm) => vm.status?.phase === 'Stopped')) break
    await pause(500)
  }
  await pause(10_000)
}

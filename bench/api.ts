import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLmdb } from '../src/store/lmdb.ts'
import { pause, program, Server, tiny, vmsPath, Watched } from './lab.ts'
import { type Figure, median, ms, percentile, repeat } from './stats.ts'
import { signed, Wire } from './wire.ts'

export const leasesPath = '/apis/coordination.k8s.io/v1/namespaces/default/leases'

export function lease(name: string): unknown {
  const spec = { holderIdentity: 'bench', leaseDurationSeconds: 10 }
  return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec }
}

let made = 0

/** Creates of Leases a second, so many by each client, one after another; all are signed before the clock starts. */
export async function leasesPerSecond(server: Server, wires: readonly Wire[], each: number): Promise<number> {
  const work = wires.map((wire) => ({
    wire,
    requests: Array.from({ length: each }, () => signed(server, 'POST', leasesPath, lease(`c${made++}`))),
  }))
  const began = performance.now()
  await Promise.all(
    work.map(async ({ wire, requests }) => {
      for (const request of requests) await wire.create(request)
    }),
  )
  return (wires.length * each * 1000) / (performance.now() - began)
}

/** Durable puts a second, one at a time, of a value as large as a machine. */
async function rawPuts(count: number): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), 'pvraw-'))
  const kv = await openLmdb(dir)
  const value = JSON.stringify(tiny('raw'))
  const began = performance.now()
  for (let i = 0; i < count; i += 1) await kv.put(`/raw/${i}`, value, 0n)
  const perSecond = (count * 1000) / (performance.now() - began)
  await kv.close()
  await rm(dir, { recursive: true })
  return perSecond
}

/** Creates, list, watch and the command line, on LMDB over TLS with signed requests; machines are Halted. */
export async function api(): Promise<Figure[]> {
  const server = await Server.make()
  try {
    await server.start()
    const clients = Array.from({ length: 16 }, () => server.client())
    const [first] = clients
    if (!first) throw new Error('no client')
    let next = 0
    const createVm = (client = first) => client.json('POST', vmsPath, { body: tiny(`a${next++}`, 'Halted') })
    const wires = await Promise.all(Array.from({ length: 16 }, () => Wire.open(server)))
    await repeat(
      20,
      async (i) => Number(await first.json('POST', vmsPath, { body: tiny(`w${i}`, 'Halted') })) * 0,
    )
    const whole = await repeat(15, async () => {
      const began = performance.now()
      execFileSync(program, ['get', 'vms'], { env: server.env, stdio: 'ignore' })
      return performance.now() - began
    })
    const raw = await rawPuts(500)
    // A Lease has no controller, so this is the API alone; for a machine its controller writes twice more.
    await leasesPerSecond(server, wires, 100)
    const one = await leasesPerSecond(server, wires.slice(0, 1), 500)
    const sixteen = await leasesPerSecond(server, wires, 200)
    next = 0
    while (next < 10_000) await Promise.all(clients.map((client) => createVm(client)))
    // The controller's own writes for these machines end first: this is about the API, not about a backlog.
    for (;;) {
      const list = await first.json<{ items: { status?: { phase?: string } }[] }>('GET', vmsPath)
      if (list.items.every((vm) => vm.status?.phase === 'Stopped')) break
      await pause(500)
    }
    const lists = await repeat(5, async () => {
      const began = performance.now()
      await first.text('GET', vmsPath)
      return performance.now() - began
    })
    const watched = new Watched(server.client())
    const seen = async () => {
      const name = `a${next}`
      const shown = watched.until((vm) => vm.metadata.name === name)
      const began = performance.now()
      await createVm()
      return (await shown) - began
    }
    // The first one waits behind the 10,000 machines that a new watch is shown at its start.
    await seen()
    const delays = await repeat(200, seen)
    watched.stop()
    await first.json('DELETE', vmsPath)
    for (const connection of [...clients, ...wires]) connection.close()
    return [
      {
        what: 'creates/s of Leases, 1 client, against raw durable puts',
        value: `${(one / raw).toFixed(2)} × (${Math.round(one)} / ${Math.round(raw)})`,
        goal: '≥ 0.5 ×',
      },
      {
        what: 'creates/s of Leases, 16 clients, against 1',
        value: `${(sixteen / one).toFixed(2)} × (${Math.round(sixteen)} / ${Math.round(one)})`,
        goal: '≥ 3 ×',
      },
      { what: 'list of 10,000 machines', value: ms(median(lists)), goal: '≤ 200 ms' },
      {
        what: 'create of a machine → watch event',
        value: `p50 ${ms(median(delays))}, p99 ${ms(percentile(delays, 0.99))}`,
        goal: 'p99 ≤ 10 ms',
      },
      {
        what: '`plasmavmc get vms` (20 machines) as a whole process',
        value: ms(median(whole)),
        goal: '≤ 200 ms',
      },
    ]
  } finally {
    await server.close()
  }
}

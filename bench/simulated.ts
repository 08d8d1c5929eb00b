import { runVmController } from '../src/controllers/vm/start.ts'
import type { Disks, Machines, Processes, QemuProcess } from '../src/host/ports.ts'
import { specHash } from '../src/host/spec-hash.ts'
import { systemClock } from '../src/lib/clock.ts'
import { silentLog } from '../src/lib/log.ts'
import { VirtualMachine, vmFinalizer } from '../src/resources/vm.ts'
import { Informer } from '../src/runtime/informer.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { MemoryKv } from '../src/store/memory.ts'
import { type Figure, ms, percentile, repeat } from './stats.ts'

const count = 10_000
const bootId = 'boot'
const runDir = '/run/bench'

/** A host on which every machine runs and answers at once; tells of each powerdown. */
function fakeHost(qemus: readonly QemuProcess[], onPowerdown: (uid: string) => void) {
  const listen = () => () => {}
  const processes: Processes = {
    bootId,
    runDir,
    scan: async () => ({ processes: qemus }),
    inspect: () => 'alive',
    launch: () => Promise.reject(new Error('nothing is launched here')),
    signal: () => 'gone',
    launchRecord: async () => undefined,
    noteSpec: async () => undefined,
    cleanup: async () => {},
    log: async () => '',
    onExit: listen,
  }
  const machines: Machines = {
    status: async () => ({ state: 'answered', status: 'running', running: true }),
    execute: async (uid, command, ..._call) => {
      if (command === 'system_powerdown') onPowerdown(uid)
      return {} as never
    },
    onChange: listen,
    forget: () => {},
    close: async () => {},
  }
  const disks: Disks = {
    observe: async () => [],
    prepare: () => {},
    checkGrowth: async () => {},
    remove: async () => {},
    onChange: listen,
    close: async () => {},
  }
  return { processes, machines, disks }
}

/** Ten thousand machines without QEMUs: the same controller over the memory store. */
export async function simulated(): Promise<Figure[]> {
  let next = 0
  const objects = new KvObjects(new MemoryKv({ historyLimit: 100_000 }), {
    clock: systemClock,
    newUid: () => `00000000-0000-4000-8000-${String(next++).padStart(12, '0')}`,
  })
  const qemus: QemuProcess[] = []
  for (let i = 0; i < count; i += 1) {
    const metadata = { name: `m${i}`, namespace: 'default', finalizers: [vmFinalizer] }
    const body = VirtualMachine.body.parse({ spec: {} })
    const vm = await objects.create(VirtualMachine, {
      apiVersion: 'plasmavmc.io/v1alpha1',
      kind: 'VirtualMachine',
      metadata,
      ...body,
    } as VirtualMachine)
    qemus.push({
      pid: 1000 + i,
      startTime: i,
      bootId,
      uid: vm.metadata.uid ?? '',
      name: `default/m${i}`,
      launchId: `l${i}`,
      runDir,
      state: 'S',
    })
  }
  const stopping = new AbortController()
  const asked = new Map<string, () => void>()
  const host = fakeHost(qemus, (uid) => asked.get(uid)?.())
  const vms = new Informer(objects, VirtualMachine, silentLog)
  const left = new Set(qemus.map(({ name }) => name))
  const all = Promise.withResolvers<void>()
  const began = performance.now()
  const loop = runVmController(
    {
      ...{ hostName: 'h', hostLabels: () => ({}), objects, vms, ...host, specHash, tell: () => {} },
      ...{ newId: () => 'id', clock: systemClock, log: silentLog, resyncMs: 600_000 },
      onPass: (key) => {
        left.delete(key)
        if (left.size === 0) all.resolve()
      },
    },
    stopping.signal,
  )
  const informer = vms.run(stopping.signal)
  await all.promise
  const full = performance.now() - began
  const delays = await repeat(200, async (i) => {
    const vm = await objects.get(VirtualMachine, { namespace: 'default', name: `m${i}` })
    const acted = new Promise<void>((resolve) => asked.set(vm.metadata.uid ?? '', resolve))
    const at = performance.now()
    await objects.update(VirtualMachine, { ...vm, spec: { ...vm.spec, runStrategy: 'Halted' } })
    await acted
    return performance.now() - at
  })
  stopping.abort()
  await Promise.all([loop, informer])
  return [
    {
      what: `${count.toLocaleString('en')} simulated machines: full pass after a restart`,
      value: ms(full),
      goal: '≤ 5 s',
    },
    {
      what: 'one spec change → action',
      value: `p50 ${ms(percentile(delays, 0.5))}, p99 ${ms(percentile(delays, 0.99))}`,
      goal: 'p99 ≤ 20 ms',
    },
  ]
}

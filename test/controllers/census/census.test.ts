import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { census, PhaseCounts } from '../../../src/controllers/census/index.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { type Phase, VirtualMachine, vmSpec, vmStatus } from '../../../src/resources/vm.ts'
import { Informer } from '../../../src/runtime/informer.ts'
import { Prometheus } from '../../../src/server/prometheus.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'

let clock: VirtualClock
let objects: KvObjects
let meter: Prometheus

beforeEach(() => {
  clock = new VirtualClock()
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => crypto.randomUUID() })
  meter = new Prometheus({ clock })
})

async function begin(): Promise<() => void> {
  const stop = new AbortController()
  const vms = new Informer(objects, VirtualMachine, silentLog, clock)
  const end = census({ vms, clock, meter })
  const loop = vms.run(stop.signal)
  onTestFinished(async () => {
    stop.abort()
    await loop
  })
  await vms.whenSynced()
  return end
}

const machine = (name: string, namespace = 'default'): VirtualMachine => ({
  ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
  ...{ metadata: { name, namespace }, spec: vmSpec.parse({}) },
})

const create = (name: string, namespace?: string) => objects.create(VirtualMachine, machine(name, namespace))

async function become(name: string, phase: Phase): Promise<void> {
  const vm = await objects.get(VirtualMachine, { namespace: 'default', name })
  await objects.updateStatus(VirtualMachine, { ...vm, status: vmStatus.parse({ ...vm.status, phase }) })
}

async function series(name: string): Promise<string[]> {
  const lines = (await meter.text()).split('\n')
  return lines.filter((line) => line.startsWith(`${name}{`)).map((line) => line.slice(name.length))
}

test('machines are counted by phase and namespace, and those in trouble are named', async () => {
  await create('a')
  await create('b')
  await create('c', 'shop')
  const end = await begin()
  await become('a', 'CrashLoopBackOff')
  await expect
    .poll(() => series('plasmavmc_vm_phase_count').then((all) => all.sort()))
    .toEqual([
      '{phase="CrashLoopBackOff",namespace="default"} 1',
      '{phase="Pending",namespace="default"} 1',
      '{phase="Pending",namespace="shop"} 1',
    ])
  expect(await series('plasmavmc_vm_unhealthy')).toEqual([
    '{namespace="default",name="a",phase="CrashLoopBackOff"} 1',
  ])
  await objects.delete(VirtualMachine, { namespace: 'default', name: 'a' })
  await expect.poll(() => series('plasmavmc_vm_unhealthy')).toEqual([])
  end()
  expect(await series('plasmavmc_vm_phase_count')).toEqual([])
})

const took = (labels: string) =>
  series('plasmavmc_vm_phase_transition_time_seconds_sum').then((all) =>
    all.find((one) => one.startsWith(labels)),
  )

test('how long a machine was in each phase, and how long it took from its creation until it first ran', async () => {
  await begin()
  await create('a')
  await expect.poll(() => series('plasmavmc_vm_phase_count')).toHaveLength(1)
  for (const [phase, ms] of [
    ['Provisioning', 2_000],
    ['Running', 3_000],
    ['Failed', 60_000],
    ['Running', 1_000],
  ] as const) {
    await clock.advance(ms)
    await become('a', phase)
    await expect
      .poll(() => series('plasmavmc_vm_phase_count'))
      .toContain(`{phase="${phase}",namespace="default"} 1`)
  }
  expect(await took('{phase="Provisioning",last_phase="Pending"}')).toMatch(/ 2$/)
  expect(await took('{phase="Running",last_phase="Provisioning"}')).toMatch(/ 3$/)
  expect(await took('{phase="Failed",last_phase="Running"}')).toMatch(/ 60$/)
  expect(await series('plasmavmc_vm_phase_transitions_total')).toContain('{from="Failed",to="Running"} 1')
  const first = await series('plasmavmc_vm_phase_transition_time_from_creation_seconds_sum')
  expect(first.sort()).toEqual(['{phase="Pending"} 0', '{phase="Provisioning"} 2', '{phase="Running"} 5'])
})

test('of machines that were there before it is not told how long they were so', async () => {
  await create('a')
  await begin()
  await clock.advance(5_000)
  await become('a', 'Running')
  await expect.poll(() => series('plasmavmc_vm_phase_transitions_total')).toHaveLength(1)
  expect(await took('{phase="Running"')).toBeUndefined()
  expect(await series('plasmavmc_vm_phase_transition_time_from_creation_seconds_sum')).toEqual([])
})

test('of more than a hundred namespaces those with the fewest machines are summed', () => {
  const all = new PhaseCounts()
  const change = (what: 'add' | 'remove', count: (i: number) => number) => {
    for (let i = 0; i < 150; i += 1)
      for (let n = 0; n < count(i); n += 1)
        all[what](`ns-${i}/m${n}`, { namespace: `ns-${i}`, name: `m${n}`, phase: 'Failed' })
  }
  change('add', (i) => (i < 100 ? 2 : 1))
  expect(all.phases()).toHaveLength(101)
  expect(all.phases().at(-1)).toEqual([{ phase: 'Failed', namespace: '_other' }, 50])
  expect(all.phases().reduce((sum, [, count]) => sum + count, 0)).toBe(250)
  expect(all.unhealthy()).toHaveLength(100)
  change('remove', (i) => (i < 100 ? 2 : 1))
  expect([...all.phases(), ...all.unhealthy()]).toEqual([])
})

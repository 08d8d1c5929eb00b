import { expect, test } from 'vitest'
import { leaveAlone } from '../../../src/controllers/vm/misunderstood.ts'
import { VirtualMachine, vmStatusOf } from '../../../src/resources/vm.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { held, lost, machine, time } from './fixture.ts'

test('Ready comes first, and what placement said stays', async () => {
  const clock = new VirtualClock()
  const objects = new KvObjects(new MemoryKv(), { clock, newUid: () => 'uid-1' })
  const made = await objects.create(VirtualMachine, machine())
  const scheduled = { type: 'Scheduled', status: 'True' as const, reason: 'Placed', message: '' }
  const conditions = [{ ...scheduled, lastTransitionTime: time() }]
  const placed = await objects.updateStatus(VirtualMachine, {
    ...made,
    status: { ...vmStatusOf(made), hostName: 'host-a', conditions },
  })
  const told: string[] = []
  const tell = (_vm: VirtualMachine, { reason }: { readonly reason: string }) => told.push(reason)
  const deps = { objects, clock, hostName: 'host-a', tell }
  await leaveAlone(placed, 'spec.new: unknown', { ...deps, tenure: () => held() })
  const { status } = await objects.get(VirtualMachine, { namespace: 'default', name: made.metadata.name })
  expect(status?.conditions.map(({ type, status: is }) => [type, is])).toEqual([
    ['Ready', 'Unknown'],
    ['Scheduled', 'True'],
  ])
  expect(told).toEqual(['NotUnderstood'])
  // The leader's word for a lost host stands.
  const there = await objects.get(VirtualMachine, { namespace: 'default', name: made.metadata.name })
  const marked = await objects.updateStatus(VirtualMachine, {
    ...there,
    status: { ...vmStatusOf(there), phase: 'Unknown', reason: 'HostLost', message: 'lost' },
  })
  await leaveAlone(marked, 'spec.new: unknown', { ...deps, tenure: () => lost })
  expect(told).toEqual(['NotUnderstood'])
  await leaveAlone(marked, 'spec.new: unknown', { ...deps, tenure: () => held() })
  expect(told).toEqual(['NotUnderstood', 'NotUnderstood'])
})

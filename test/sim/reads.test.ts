import { expect, test } from 'vitest'
import { Host, hostSpec } from '../../src/resources/host.ts'
import { SimProcess } from '../../src/sim/clock.ts'
import { product } from '../../src/sim/product.ts'
import { World, worldEpoch } from '../../src/sim/world.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'

test('what two processes read is worked out once, anew for each version, and nobody can change it', async () => {
  const world = new World({ seed: 1, hosts: [], parts: product })
  const { clock } = new SimProcess('one', world.timeline, { rate: 1, epoch: worldEpoch, bootedAt: 0 })
  const client = () =>
    new KvObjects(world.store.direct(), { clock, newUid: () => world.random.uuid(), reader: world.reader })
  const [one, other] = [client(), client()]
  const ref = { name: 'host-a' }
  const made = await one.create(Host, {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'Host', metadata: ref, spec: hostSpec.parse({}) },
  })
  const first = await one.get(Host, ref)
  expect(first).toEqual(made)
  expect(await other.get(Host, ref)).toBe(first)
  expect(() => Object.assign(first.spec.fencing, { mode: 'none' })).toThrow(TypeError)
  await other.update(Host, { ...first, spec: { ...first.spec, unschedulable: true } })
  expect((await one.get(Host, ref)).spec.unschedulable).toBe(true)
  expect((await one.list(Host)).items[0]).toBe(await other.get(Host, ref))
})

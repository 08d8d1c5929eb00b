import { expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { hostSpec } from '../../src/resources/host.ts'
import { Host } from '../../src/resources/kinds.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { beginTerm, termKey } from '../../src/store/term.ts'

const over = (kv: ConstructorParameters<typeof KvObjects>[0]) =>
  new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
const host = (name: string) => ({
  apiVersion: apiVersionOf(Host),
  kind: 'Host',
  metadata: { name },
  spec: hostSpec.parse({}),
})
const superseded = { reason: 'ServiceUnavailable', message: expect.stringContaining('epoch 2') }

it('refuses what an earlier leader still writes, in every way it can write, and changes nothing', async () => {
  const kv = new MemoryKv()
  const old = over(await beginTerm(kv, 1))
  const made = await old.create(Host, host('a'))
  const read = await old.get(Host, { name: 'a' })
  const young = over(await beginTerm(kv, 2))
  const { revision } = await kv.list('/')
  await expect(old.create(Host, host('b'))).rejects.toMatchObject(superseded)
  await expect(
    old.update(Host, { ...read, spec: { ...read.spec, unschedulable: true } }),
  ).rejects.toMatchObject(superseded)
  await expect(
    old.updateStatus(Host, {
      ...read,
      status: { addresses: [], capabilities: [], orphans: [], conditions: [], vms: 3 },
    }),
  ).rejects.toMatchObject(superseded)
  await expect(old.delete(Host, { name: 'a' })).rejects.toMatchObject(superseded)
  expect((await kv.list('/')).revision).toBe(revision)
  expect(await young.get(Host, { name: 'a' })).toEqual(made)
  await young.delete(Host, { name: 'a' })
})

it('tells a conflict on the object from a lost term', async () => {
  const kv = new MemoryKv()
  const leader = over(await beginTerm(kv, 1))
  const read = await leader.create(Host, host('a'))
  await over(kv).update(Host, { ...read, spec: { ...read.spec, unschedulable: true } })
  await expect(
    leader.update(Host, { ...read, spec: hostSpec.parse({ taints: [{ key: 'k', effect: 'NoSchedule' }] }) }),
  ).rejects.toMatchObject({ reason: 'Conflict' })
})

it('begins no term that is older than the one begun, and takes up its own again', async () => {
  const kv = new MemoryKv()
  await beginTerm(kv, 2)
  await expect(beginTerm(kv, 1)).rejects.toMatchObject(superseded)
  const again = await beginTerm(kv, 2)
  expect(await again.put('/x', '1', 0n)).toBeDefined()
  expect((await kv.get(termKey))?.value).toBe('2')
})

it('refuses another condition beside the term, which it could not keep, and writes nothing', async () => {
  const kv = new MemoryKv()
  const leader = await beginTerm(kv, 1)
  const own = await leader.put('/x', '1', 0n)
  const also = { key: '/y', revision: 7n }
  await expect(leader.put('/x', '2', own!, also)).rejects.toThrow("can't hold by /y as well")
  await expect(leader.delete('/x', own!, also)).rejects.toThrow("can't hold by /y as well")
  expect(await leader.get('/x')).toMatchObject({ value: '1', revision: own })
})

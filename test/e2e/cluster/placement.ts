import { expect, test } from 'vitest'
import { bytesOf } from '../../../src/resources/quantity.ts'
import { processOf, uidOf } from '../lab.ts'
import { manual } from './machines.ts'
import { cluster } from './shared.ts'

const unplaced = (name: string, why: string) =>
  cluster.sees(
    name,
    `waits: ${why}`,
    ({ status }) => status?.reason === 'Unschedulable' && status.message?.includes(why) === true,
  )

test('labels and taints say where a machine may run, and it says so where it may run nowhere', async () => {
  await cluster.create(manual('north', { hostSelector: { zone: 'north' } }))
  await unplaced('north', '0 of 3 hosts fit: h1, h2, h3: spec.hostSelector wants zone=north')
  await cluster.patchHost('h2', { metadata: { labels: { zone: 'north' } } })
  const north = await cluster.running('north', [cluster.host('h2')])
  expect(north.status?.conditions.find(({ type }) => type === 'Scheduled')).toMatchObject({
    ...{ status: 'True', message: 'on host h2' },
  })
  expect(north.status?.message, 'nothing is left of why it waited').toBeUndefined()

  const taints = [{ key: 'gpu', value: 'yes', effect: 'NoSchedule' }]
  for (const name of ['h1', 'h2', 'h3']) await cluster.patchHost(name, { spec: { taints } })
  await cluster.create(manual('any'))
  await cluster.create(manual('tolerant', { tolerations: [{ key: 'gpu' }] }))
  await cluster.running('tolerant')
  await unplaced('any', 'taint gpu=yes:NoSchedule')
  expect((await cluster.vm('north')).status, 'what is there stays').toMatchObject({
    ...{ hostName: 'h2', phase: 'Running' },
  })
  await cluster.patchHost('h3', { spec: { taints: [] } })
  await cluster.running('any', [cluster.host('h3')])
  for (const name of ['h1', 'h2']) await cluster.patchHost(name, { spec: { taints: [] } })
  for (const name of ['north', 'any', 'tolerant']) await cluster.remove(name)
})

test('what is left goes to the machine of higher priority, and the other gets it next', async () => {
  for (const name of ['h1', 'h2', 'h3']) await cluster.patchHost(name, { spec: { unschedulable: true } })
  const [host] = await cluster.hostObjects()
  // Of the hundredth part of the host's memory one of them takes two thirds.
  const memory = Math.floor(bytesOf(host?.status?.memory ?? 0) / 150)
  await cluster.create(manual('low', { memory }))
  await cluster.create(manual('high', { memory, priority: 10 }))
  await unplaced('high', 'cordoned')
  await cluster.patchHost('h1', { spec: { unschedulable: false, overcommit: { memoryPercent: 1 } } })
  await cluster.running('high', [cluster.host('h1')])
  await unplaced('low', 'h1: memory:')
  await cluster.remove('high')
  await cluster.running('low', [cluster.host('h1')])
  for (const name of ['h2', 'h3']) await cluster.patchHost(name, { spec: { unschedulable: false } })
})

test('an orphan that is adopted stays what it is, where it is', async () => {
  await cluster.patchHost('h1', { spec: { overcommit: { memoryPercent: 100 } } })
  const [before] = await cluster.createOn(cluster.host('h2'), manual('lost'))
  const uid = uidOf(before!)
  // Its object goes while its host's server is away.
  const h2 = cluster.host('h2')
  h2.signal('SIGKILL', 'server')
  await cluster.remove('lost')
  await cluster.patch('lost', { metadata: { finalizers: [] } })
  await h2.serve()
  await cluster.until('h2 tells of the orphan', async () => {
    const object = (await cluster.hostObjects()).find(({ metadata }) => metadata.name === 'h2')
    return object?.status?.orphans.some((orphan) => orphan.uid === uid)
  })
  // Each of the others would have more room for it.
  await cluster.patchHost('h2', { spec: { unschedulable: true } })
  expect(await cluster.host('h1').cli('adopt', uid)).toMatchObject({ code: 0 })
  const after = await cluster.running('lost', [cluster.host('h2')])
  expect(processOf(after)).toEqual(processOf(before!))
  expect(cluster.qemus(uid)).toHaveLength(1)
  const noted = await cluster.sees('lost', 'is noted', ({ status }) => status?.disksHost === 'h2')
  expect(noted.status?.conditions.find(({ type }) => type === 'Scheduled')?.status).toBe('True')
})

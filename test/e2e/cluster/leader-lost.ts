import { test } from 'vitest'
import { figure } from './figures.ts'
import { small } from './machines.ts'
import { cluster } from './shared.ts'

test('the host that leads loses its power: another leads and places its machines', async () => {
  const leader = await cluster.leader()
  await cluster.createOn(leader, small('led'))
  const began = performance.now()
  await leader.powerOff()
  await cluster.running('led', cluster.others(leader))
  figure('host of the leader lost: a machine runs on another host', began)
})

import { expect, test } from 'vitest'
import type { Way } from '../../../src/drill/cluster/network.ts'
import { processOf, uidOf } from '../lab.ts'
import { beater, beaterOnFollower, sparingLeader } from './beater.ts'
import { figure } from './figures.ts'
import { manual } from './machines.ts'
import { cluster } from './shared.ts'

const ways: readonly (readonly [string, Way])[] = [
  ['neither hears nor is heard', 'both'],
  ['is heard and hears nothing', 'in'],
  ['hears and is not heard', 'out'],
]

test.each(ways)('a host that %s stops what fails over before it runs elsewhere', async (_words, way) => {
  const { uid, host, boots } = await beaterOnFollower()
  const waits = `waits-${way}`
  const [kept] = await cluster.createOn(host, manual(waits))
  const began = performance.now()
  await sparingLeader(async () => {
    await cluster.network.cut(host.name, way)
    await cluster.until('its host stopped it', () =>
      host.processes('qemu').every(({ argv }) => !argv.includes(uid)),
    )
    figure(`cut off (${way}): stopped by its host`, began)
    await cluster.running(beater, cluster.others(host))
    figure(`cut off (${way}): runs on another host`, began)
  })
  // The witness has looked all the time; the other machine was left alone.
  expect(cluster.qemus(uidOf(kept!))).toHaveLength(1)
  expect((await cluster.vm(waits, cluster.others(host))).status?.phase).toBe('Unknown')
  const healed = performance.now()
  await cluster.network.heal(host.name)
  expect(processOf(await cluster.running(waits, [host]))).toEqual(processOf(kept!))
  figure(`healed (${way}): the machine that waited is Running`, healed)
  await cluster.beats(uid, 1)
  expect(cluster.boots(uid)).toBe(boots + 1)
  expect(host.processes('qemu').some(({ argv }) => argv.includes(uid))).toBe(false)
  await cluster.remove(waits)
})

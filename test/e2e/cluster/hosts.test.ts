import { test } from 'vitest'
import { beater } from './beater.ts'
import { cluster, scenarios, shareLab } from './shared.ts'

// With the terms of leases that are the default.
shareLab()

scenarios('the store', () => import('./store.ts'))

scenarios('hosts and leaders that are lost', async () => {
  await import('./host-lost.ts')
  await import('./partition.ts')
  await import('./leader.ts')
  test('what the guest said was written is on its disk, whichever hosts it ran on', () =>
    cluster.checkHalted(beater))
  await import('./leader-lost.ts')
})

scenarios('a member of etcd that is replaced', () => import('./member.ts'))

scenarios('a store that is restored', () => import('./restore.ts'))

scenarios('fencing other than by guards', () => import('./fence.ts'))

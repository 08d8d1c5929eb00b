import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { kvContract } from '../contract/kv.ts'
import { objectsContract } from '../contract/objects.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { openFresh, reopened } from '../fakes/etcd-stores.ts'

let lab: EtcdLab
beforeAll(async () => {
  lab = await EtcdLab.start()
})
afterAll(() => lab?.close())

kvContract('etcd', { open: (history) => openFresh(lab, history), reopen: (kv) => reopened(lab, kv) })
objectsContract('etcd', {
  open: async (history) =>
    new KvObjects(await openFresh(lab, history), { clock: systemClock, newUid: randomUUID }),
  restoresUids: true,
})

import { afterAll, beforeAll, expect, it } from 'vitest'
import { put } from '../contract/kv.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { openAt } from '../fakes/etcd-stores.ts'

let lab: EtcdLab
beforeAll(async () => {
  lab = await EtcdLab.start({ args: ['--quota-backend-bytes', '2000000'] })
})
afterAll(() => lab?.close())

const full = {
  reason: 'ServiceUnavailable',
  message: expect.stringMatching(/can't be written.*database space exceeded/),
  hint: expect.stringContaining('disarm the alarm'),
}

it('an etcd whose quota is used up is told of by who looks whether it answers, until there is room again', async () => {
  const kv = await openAt(lab)
  await put(kv, '/a/1')
  const revision = async () => /"revision":(\d+)/.exec(await lab.ctl('endpoint', 'status', '-w', 'json'))?.[1]
  const junk = 'x'.repeat(100_000)
  const filled = async () => {
    for (let i = 0; i < 100; i += 1) await lab.ctl('put', '/junk', junk)
  }
  await expect(filled()).rejects.toThrow(/space exceeded/)
  await kv.probe(2_000)
  await expect(kv.put('/a/2', 'x', 0n)).rejects.toMatchObject(full)
  await expect(kv.probe(2_000)).rejects.toMatchObject(full)
  expect((await kv.get('/a/1'))?.key).toBe('/a/1')
  await lab.ctl('compact', (await revision()) ?? '')
  await lab.ctl('defrag')
  await lab.ctl('alarm', 'disarm')
  await kv.probe(2_000)
  await put(kv, '/a/2')
  await kv.close()
})

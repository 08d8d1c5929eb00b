import { afterAll, beforeAll, expect, test } from 'vitest'
import { type GuardRecord, processLives, readGuardRecord } from '../../src/host/guard-file.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { Lab, processOf, tiny } from './lab.ts'
import { startTimeOf } from './proc.ts'

let etcd: EtcdLab
let lab: Lab

// About who does what, not about how fast: no deadline of these is met by a machine that is merely slow.
const flags = () => [
  ...['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(','), '--peer-listen', '127.0.0.1:0'],
  ...['--lease-duration', '60', '--lease-renew', '1', '--lease-deadline', '50'],
]
const bootId = new Procfs().bootId()

/** What the guard that runs has told. */
function guard(): GuardRecord | undefined {
  const record = readGuardRecord(lab.runDir, bootId)
  return record && processLives(record) ? record : undefined
}

beforeAll(async () => {
  etcd = await EtcdLab.start()
  lab = await Lab.start({ flags: flags() })
})
afterAll(async () => {
  const last = lab && guard()
  await lab?.close()
  if (last) process.kill(last.pid, 'SIGKILL')
  await etcd?.close()
})

test('a guest runs under the lease that the guard of its host holds', async () => {
  await lab.create(tiny('web', { recovery: { onHostLoss: 'Failover' } }))
  const vm = await lab.running('web')
  expect(guard()).toMatchObject({ held: true, epoch: 1, host: 'lab' })
  // From sources as packed, it is started without the rest of the program.
  const argv = new Procfs().cmdline(guard()!.pid)
  expect(argv).toMatchObject({
    value: expect.arrayContaining([expect.stringMatching(/\bguard(-entry\.ts|\.js)$/)]),
  })
  expect(vm.status?.placementEpoch).toBe(1)
})

test('the server is killed: guard, lease and guest are not, and the next server finds them', async () => {
  const before = processOf(await lab.running('web'))
  const { pid, sentAt = 0 } = guard()!
  await lab.end('SIGKILL')
  await lab.until('the lease is renewed all the same', () => (guard()?.sentAt ?? 0) > sentAt + 3_000)
  expect(guard()?.pid).toBe(pid)
  expect(startTimeOf(before.pid)).toBe(before.startTime)
  await lab.serve({ flags: flags() })
  expect(processOf(await lab.running('web'))).toEqual(before)
  expect(guard()).toMatchObject({ pid, epoch: 1, held: true })
})

test('the guard is killed: the server starts another, under the same epoch, and the guest runs on', async () => {
  const before = processOf(await lab.running('web'))
  const { pid } = guard()!
  process.kill(pid, 'SIGKILL')
  await lab.until('there is another', () => guard() !== undefined && guard()?.pid !== pid)
  await lab.until('it holds the lease', () => guard()?.held === true)
  expect(guard()?.epoch).toBe(1)
  expect(startTimeOf(before.pid)).toBe(before.startTime)
})

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readGuardRecord } from '../../src/host/guard-file.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { Lab, processOf, program, tiny } from './lab.ts'
import { startTimeOf } from './proc.ts'

let etcd: EtcdLab
let lab: Lab
let flags: readonly string[]
/** The process of the machine, which nothing here may touch. */
let guest: { readonly pid: number; readonly startTime: number }

const record = () => join(lab.dataDir, 'etcd-seen.json')
const lives = () => expect(startTimeOf(guest.pid)).toBe(guest.startTime)
const bootId = new Procfs().bootId()

beforeAll(async () => {
  etcd = await EtcdLab.start()
  const terms = ['--lease-duration', '5', '--lease-renew', '0.6', '--lease-deadline', '2']
  const own = ['--host-name', 'one', '--peer-listen', '127.0.0.1:0', ...terms]
  flags = ['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(','), ...own]
  lab = await Lab.start({ flags })
  await lab.create(tiny('a', { recovery: { onHostLoss: 'Failover' } }))
  guest = processOf(await lab.running('a'))
  await lab.sees('a', 'would fail over', ({ status }) => status?.onHostLoss === 'Failover')
})
afterAll(async () => {
  await lab?.close()
  await etcd?.close()
})

/** Starts a server that is to end by itself. */
async function refused(): Promise<string> {
  const own = ['--data-dir', lab.dataDir, '--run-dir', lab.runDir, '--listen', lab.address]
  const { code, stderr } = await lab.run('timeout', [
    '--signal',
    'KILL',
    '30',
    program,
    'serve',
    ...own,
    ...flags,
  ])
  expect(`${code} ${stderr}`).toMatch(/^1 /)
  expect(stderr).toContain(record())
  expect(stderr).toContain('--accept-store-reset')
  lives()
  return stderr
}

/** Whether a guard has renewed since a monotonic time, ms. */
const renewed = (since: number) => {
  const guard = readGuardRecord(lab.runDir, bootId)
  return guard?.held === true && (guard.sentAt ?? 0) > since
}
const lastRenewal = () => readGuardRecord(lab.runDir, bootId)?.sentAt ?? 0

async function accepted(): Promise<void> {
  await lab.serve({ flags: [...flags, '--accept-store-reset'] })
  expect(readFileSync(join(lab.dir, 'server.log'), 'utf8')).toContain('is accepted as the store from now on')
  lives()
}

test('a server does not start on an etcd that was restored from an older snapshot until it is told to; its machine runs on', async () => {
  const snapshot = join(lab.dir, 'snapshot')
  await etcd.ctl('snapshot', 'save', snapshot)
  await lab.patch('a', { metadata: { labels: { after: 'the-snapshot' } } })
  await lab.end('SIGTERM')
  const [member] = etcd.members
  await member?.stop()
  const since = lastRenewal()
  await member?.restore(snapshot)
  member?.start()
  await member?.serving()
  await lab.until('the guard renews the lease again', () => renewed(since))
  // It may have done so until the revision was as high as before.
  expect(await refused()).toMatch(
    /(is at revision \d+, but revision \d+ was there|has another history).*restored/,
  )
  await accepted()
  expect((await lab.vm('a')).metadata.labels).toBeUndefined()
  expect(processOf(await lab.running('a'))).toMatchObject(guest)
  // Once is enough.
  await lab.restart('SIGKILL', { flags })
  expect(processOf(await lab.running('a'))).toMatchObject(guest)
})

test('nor on an empty one in its place', async () => {
  await lab.end('SIGTERM')
  const [member] = etcd.members
  await member?.stop()
  await member?.wipe()
  member?.start(['--initial-cluster-token', 'another'])
  await member?.serving()
  expect(await refused()).toMatch(/is another etcd \(cluster [0-9a-f]+\) than before \([0-9a-f]+\)/)
  await accepted()
  // Its host says so with its next report.
  await lab.until('the guest is listed as an orphan', async () => {
    const { stdout } = await lab.cli('orphans')
    return stdout.includes(String(guest.pid))
  })
  lives()
})

test('nor where what is remembered of it can not be read', async () => {
  await lab.end('SIGTERM')
  writeFileSync(record(), readFileSync(record(), 'utf8').slice(0, 20))
  expect(await refused()).toMatch(/is no record of the store/)
  await accepted()
  await lab.restart('SIGTERM', { flags })
  lives()
})

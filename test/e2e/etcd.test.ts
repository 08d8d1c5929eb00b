import { afterAll, beforeAll, expect, test } from 'vitest'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { Lab, processOf, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let etcd: EtcdLab
let labs: readonly [Lab, Lab]

const flagsOf = (host: string) => [
  ...['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(','), '--host-name', host],
  // Both guards are on this machine.
  ...['--peer-listen', '127.0.0.1:0'],
]

beforeAll(async () => {
  etcd = await EtcdLab.start()
  labs = [await Lab.start({ flags: flagsOf('one') }), await Lab.start({ flags: flagsOf('two') })]
})
afterAll(async () => {
  await Promise.all((labs ?? []).map((lab) => lab.close()))
  await etcd?.close()
})

test('two servers share one etcd: each machine has one QEMU, on the host of its status, whoever is asked', async () => {
  const [one, two] = labs
  const names = ['a', 'b', 'c']
  for (const [i, name] of names.entries()) await labs[i % 2]!.create(tiny(name))
  for (const name of names) {
    const [left, right] = await Promise.all([one.running(name), two.running(name)])
    expect(left.status?.hostName).toMatch(/^(one|two)$/)
    expect(right.status?.hostName).toBe(left.status?.hostName)
    const owner = left.status?.hostName === 'one' ? one : two
    const other = owner === one ? two : one
    expect(owner.qemus(uidOf(left)).map(({ pid }) => pid)).toEqual([processOf(left).pid])
    expect(owner.qemus().some(({ pid }) => pid === processOf(left).pid)).toBe(true)
    expect(other.qemus().some(({ pid }) => pid === processOf(left).pid)).toBe(false)
  }
  const { items } = await two.client.json<{ items: { metadata: { name: string } }[] }>(
    ...(['GET', '/apis/plasmavmc.io/v1alpha1/hosts'] as const),
  )
  expect(items.map(({ metadata }) => metadata.name)).toEqual(['one', 'two'])
})

/** Values of a metric on one server, by the text of their labels. */
async function metric(lab: Lab, name: string): Promise<Record<string, number>> {
  const text = await lab.client.text('GET', '/metrics', { timeoutMs: 30_000 })
  const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
  return Object.fromEntries(
    lines.map((line) => [line.slice(name.length, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]),
  )
}

test('metrics of all servers together are right: one leads and counts machines, each tells its lease', async () => {
  const both = (name: string) => Promise.all(labs.map((lab) => metric(lab, name)))
  const running = '{phase="Running",namespace="default"}'
  const counted = async () => (await both('plasmavmc_vm_phase_count')).map((one) => one[running] ?? 0).sort()
  await labs[0].until('one server counts the three machines', async () => `${await counted()}` === '0,3')
  const leads = (await both('plasmavmc_leader_leading_status')).map((one) => one[''])
  expect(leads.sort()).toEqual([0, 1])
  for (const lab of labs) {
    expect(await metric(lab, 'plasmavmc_lease_held')).toEqual({ '': 1 })
    expect(await metric(lab, 'plasmavmc_lease_deadline_seconds')).toEqual({ '': 6 })
    expect((await metric(lab, 'plasmavmc_lease_age_seconds'))['']).toBeLessThan(6)
    await lab.until('the silence of both is told', async () => {
      const silence = await metric(lab, 'plasmavmc_host_lease_silence_seconds')
      return `${Object.keys(silence).sort()}` === '{host="one"},{host="two"}'
    })
    await lab.until('renewals of both are seen', async () => {
      const seen = await metric(lab, 'plasmavmc_host_lease_renewals_total')
      return (seen['{host="one"}'] ?? 0) > 0 && (seen['{host="two"}'] ?? 0) > 0
    })
    expect(await metric(lab, 'plasmavmc_store_available')).toEqual({ '': 1 })
  }
  await labs[0].until('both hosts are told to be Ready, once each', async () => {
    const states = Object.keys(Object.assign({}, ...(await both('plasmavmc_host_state')))).sort()
    return `${states}` === '{host="one",state="Ready"},{host="two",state="Ready"}'
  })
  const placed = await both('plasmavmc_placement_attempts_total')
  expect(placed.reduce((sum, one) => sum + (one['{result="placed"}'] ?? 0), 0)).toBe(3)
})

test('machines run on while etcd is stopped and restarted; then the servers go on by themselves', async () => {
  const [one, two] = labs
  const before = processOf(await one.running('a'))
  const [member] = etcd.members
  await member?.pause()
  const healthOf = (lab: Lab, path: string) => lab.client.text('GET', path, { timeoutMs: 30_000 })
  for (const lab of labs) {
    // An answer of the store that was asked for right before counts for a second.
    const unready = () =>
      healthOf(lab, '/readyz').then(
        () => false,
        () => true,
      )
    await lab.until('it is not ready', unready)
    await expect(healthOf(lab, '/readyz')).rejects.toThrow(/\[-\]store failed: etcd can't be read/)
    expect(await healthOf(lab, '/livez')).toBe('ok')
    const answer = lab.client.json('GET', '/apis/plasmavmc.io/v1alpha1/hosts', { timeoutMs: 30_000 })
    await expect(answer).rejects.toThrow(/etcd can't be read/)
    expect(await metric(lab, 'plasmavmc_store_available')).toEqual({ '': 0 })
  }
  await member?.kill()
  expect(startTimeOf(before.pid)).toBe(before.startTime)
  member?.start()
  await member?.serving()
  for (const lab of labs)
    await lab.until('it is ready again', async () => (await healthOf(lab, '/readyz')) === 'ok')
  await one.until('it can be written again', async () => Boolean(await one.create(tiny('d'))))
  await two.running('d')
  expect(processOf(await two.running('a'))).toEqual(before)
})

test('a machine is deleted through whichever server', async () => {
  const [one, two] = labs
  for (const name of ['a', 'b', 'c', 'd']) {
    await two.remove(name)
    await one.gone(name)
  }
  expect(labs.flatMap((lab) => lab.qemus())).toEqual([])
})

test.each([
  [['--etcd-endpoints', '127.0.0.1:1'], /etcd at http:\/\/127\.0\.0\.1:1 can't be used.*--etcd-endpoints/s],
  [['--etcd-endpoints', '127.0.0.1:1', '--etcd-ca', '/no.pem'], /--etcd-ca: \/no\.pem: does not exist/],
  [
    ['--etcd-endpoints', '127.0.0.1:1', '--etcd-ca', '/etc/hostname'],
    /--etcd-ca: \/etc\/hostname: holds no PEM certificate/,
  ],
])('a server that cannot use its etcd says why: %j', async (flags, message) => {
  const [one] = labs
  const folder = `${one.dir}/other`
  const place = ['--data-dir', `${folder}/d`, '--run-dir', `${folder}/r`, '--listen', '127.0.0.1:1']
  const { code, stderr } = await one.cli('serve', '--store', 'etcd', ...place, ...flags)
  expect(code).toBe(1)
  expect(stderr).toMatch(message)
})

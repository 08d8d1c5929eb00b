import { afterEach, beforeEach, expect, test } from 'vitest'
import { FenceEvidence } from '../../src/resources/fence-evidence.ts'
import { fencedHolder } from '../../src/resources/host-lease.ts'
import { Cluster } from './cluster.ts'
import { runCommand } from './fake-server.ts'

let cluster: Cluster
afterEach(() => cluster.close())
beforeEach(async () => {
  cluster = await Cluster.start(['a', 'b'])
})

const failover = { recovery: { onHostLoss: 'Failover' } }
const evidences = async () => (await cluster.objects.list(FenceEvidence)).items
const confirmed = ['host', 'fence', 'a', '--confirm-off'] as const

/** Waits for a person's word, as the leader does. */
async function evidence(name: string): Promise<FenceEvidence> {
  await expect
    .poll(async () => (await evidences()).map(({ metadata }) => metadata.name), { timeout: 20_000 })
    .toContain(name)
  return cluster.objects.get(FenceEvidence, { name })
}

const take = (epoch: number) =>
  cluster.setLease('a', { holderIdentity: fencedHolder, leaseTransitions: epoch })

test('without --confirm-off it says what it would do, and does nothing', async () => {
  const { code, out, err } = await cluster.run('host', 'fence', 'a')
  expect({ code, out }).toEqual({ code: 2, out: '' })
  expect(err).toContain('host fence a: nothing was done')
  expect(err).toContain('each of them runs twice')
  expect(err).toContain('plasmavmc host fence a --confirm-off')
  expect(await evidences()).toEqual([])
})

test('a host that renews its lease is refused, and no word is stored', async () => {
  const renewing = setInterval(() => void cluster.setLease('a', { renewTime: new Date().toISOString() }), 700)
  const { code, err } = await cluster.run(...confirmed).finally(() => clearInterval(renewing))
  expect(code).toBe(1)
  expect(err).toContain('error: host a is not off: it renewed its lease just now')
  expect(await evidences()).toEqual([])
})

test('with a kubeconfig it is the word of whom the server takes one for', async () => {
  const running = runCommand(['--kubeconfig', cluster.kubeconfig, ...confirmed])
  expect((await evidence('a-2')).spec.by).toMatch(/^jane \(.+@.+\)$/)
  await take(2)
  expect((await running).code).toBe(0)
})

test('the word is stored with who, why and what was seen, and each machine is followed to where it goes', async () => {
  await cluster.machine('web', 'a', failover)
  await cluster.machine('mail', 'a')
  await cluster.machine('there', 'b', failover)
  const lease = await cluster.lease('a')
  const running = cluster.run(...confirmed, '--reason', 'pulled its plug')
  const { spec } = await evidence('a-2')
  expect(spec).toMatchObject({
    ...{ host: 'a', epoch: 2, proof: 'Operator', votes: [] },
    by: expect.stringMatching(new RegExp(`^${cluster.accessKeyId} \\(.+@.+\\)$`)),
    lease: { holder: 'a/id-of-a', epoch: 1, resourceVersion: lease.metadata.resourceVersion },
    seen: expect.stringContaining('pulled its plug'),
  })
  expect(spec.silentMs).toBeGreaterThan(1_000)
  await take(2)
  const moved = { phase: 'Starting', hostName: 'b', evidence: 'a-2' } as const
  await cluster.setStatus('web', ({ process: _p, ...status }) => ({ ...status, ...moved }))
  const lost = { phase: 'Unknown', reason: 'HostLost', message: 'host a is lost' } as const
  await cluster.setStatus('mail', (status) => ({ ...status, ...lost }))
  const { code, out } = await running
  expect(code).toBe(0)
  expect(out).toContain('fenceevidence.plasmavmc.io/a-2 stored\n')
  expect(out).toContain('default/web goes to b\n')
  expect(out).toContain('default/mail stays: it waits for its host, as spec.recovery.onHostLoss is Manual\n')
  expect(out).not.toContain('there')
  expect((await cluster.run('describe', 'vm', 'web')).out).toMatch(
    /^Moved by: +a-2: Operator, .* ago, by .*pulled its plug/m,
  )
  expect((await cluster.run('describe', 'host', 'a')).out).toMatch(/^Last evidence: +a-2: Operator, /m)
  expect((await cluster.run('get', 'fenceevidences')).out).toMatch(/^a-2 +a +2 +Operator +PVMC/m)
})

test('a word that the leader refuses is told as refused', async () => {
  const running = cluster.run(...confirmed)
  await evidence('a-2')
  await cluster.setLease('a', { renewTime: new Date().toISOString() })
  await cluster.objects.delete(FenceEvidence, { name: 'a-2' })
  const { code, err } = await running
  expect(code).toBe(1)
  expect(err).toContain('error: the leader did not take your word for it: a renewed its lease after that')
})

test('where nobody acts on it in time it says what is left and who would', async () => {
  await cluster.machine('web', 'a', failover)
  const { code, err } = await cluster.run(...confirmed, '--timeout', '500ms')
  expect(code).toBe(1)
  expect(err).toMatch(/fenceevidence a-2 is stored, but after 0\.5 s not all is done/)
  expect(err).toContain('a server with the role controller does it')
})

test('said before, it is not said again, and the machines are followed', async () => {
  const first = cluster.run(...confirmed)
  await evidence('a-2')
  await take(2)
  expect(await first).toMatchObject({ code: 0, out: expect.stringContaining('host a has no machines') })
  const again = await cluster.run(...confirmed)
  expect(again).toMatchObject({ code: 0, err: '' })
  expect(again.out).toContain('fenceevidence.plasmavmc.io/a-2 was stored before')
  expect(await evidences()).toHaveLength(1)
})

test('Ctrl-C while the lease is watched stores nothing, and says so', async () => {
  const stop = new AbortController()
  const running = cluster.runUntil(stop.signal, ...confirmed)
  setTimeout(() => stop.abort(new Error('stopped by SIGINT')), 300)
  expect(await running).toMatchObject({ code: 1, err: 'stopped: nothing was stored\n' })
  expect(await evidences()).toEqual([])
})

test.each([
  [['host', 'fence', 'nope', '--confirm-off'], 1, 'hosts.plasmavmc.io "nope" not found'],
  [['host', 'fance', 'a'], 2, 'did you mean fence?'],
  [['host', 'fence', 'a', 'b'], 2, 'too many arguments'],
])('%j', async (argv, code, said) => {
  const result = await cluster.run(...argv)
  expect(result.err).toContain(said)
  expect(result.code).toBe(code)
})

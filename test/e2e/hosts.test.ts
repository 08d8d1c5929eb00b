import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Host, Lease } from '../../src/resources/kinds.ts'
import { EtcdLab, freePorts } from '../fakes/etcd-server.ts'
import { Lab, tiny } from './lab.ts'

const hostPath = (name: string) => `/apis/plasmavmc.io/v1alpha1/hosts/${name}`
const hostOf = (lab: Lab, name: string) => lab.client.json<Host>('GET', hostPath(name))

describe('the host of an embedded store', () => {
  let lab: Lab
  beforeAll(async () => {
    lab = await Lab.start()
    const { stdout } = await lab.cli('kubeconfig')
    writeFileSync(join(lab.dir, 'kubeconfig'), stdout)
    await lab.until('the host is registered', async () => (await hostOf(lab, 'lab')).status !== undefined)
  })
  afterAll(() => lab.close())

  const kubectl = (...args: readonly string[]) =>
    lab.run('kubectl', ['--kubeconfig', join(lab.dir, 'kubeconfig'), ...args])

  test('tells what it is and can, with nothing of a cluster', async () => {
    await lab.until('its QEMU was asked', async () => {
      const { status } = await hostOf(lab, 'lab')
      return status?.capabilities.includes('live-migration') === true
    })
    const host = await hostOf(lab, 'lab')
    expect(host.metadata.labels).toEqual({
      'kubernetes.io/hostname': 'lab',
      'kubernetes.io/arch': process.arch === 'x64' ? 'amd64' : process.arch,
      'plasmavmc.io/accelerator': 'tcg',
    })
    expect(host.metadata.annotations ?? {}).toEqual({})
    expect(host.status?.epoch).toBeUndefined()
  })

  test('kubectl and our own table show the same, cordoned and not', async () => {
    const looks = async () => {
      const [theirs, ours] = [await kubectl('get', 'hosts'), await lab.cli('get', 'hosts')]
      const cells = (text: string) =>
        text.split('\n').map((line) =>
          line
            .trim()
            .split(/\s{2,}/)
            // An epoch that there is none of is blank to kubectl, as in Kubernetes' own tables.
            .filter((cell) => cell !== '<none>')
            .slice(0, 5),
        )
      expect(cells(theirs.stdout)).toEqual(cells(ours.stdout))
      return cells(ours.stdout)
    }
    const [head, row] = await looks()
    expect(head).toEqual(['NAME', 'STATUS', 'VMS', 'CPUS', 'MEMORY'])
    expect(row?.slice(0, 2)).toEqual(['lab', 'Ready'])
    expect((await lab.cli('cordon', 'lab')).code).toBe(0)
    expect((await looks())[1]?.[1]).toBe('Ready,SchedulingDisabled')
    expect((await lab.cli('uncordon', 'lab')).code).toBe(0)
    expect((await looks())[1]?.[1]).toBe('Ready')
  })

  test('a cordoned host starts no machine, and does once it is uncordoned', async () => {
    await lab.cli('cordon', 'lab')
    await lab.create(tiny('waits'))
    const ready = async () => (await lab.vm('waits')).status?.conditions.find(({ type }) => type === 'Ready')
    await lab.until('it is refused', async () => (await ready())?.reason === 'Unschedulable')
    expect(await ready()).toMatchObject({ status: 'False', message: 'cordoned (spec.unschedulable)' })
    expect(lab.qemus()).toEqual([])
    expect((await lab.cli('uncordon', 'lab')).code).toBe(0)
    await lab.running('waits')
    await lab.cli('delete', 'vm', 'waits')
  })

  test('kubectl label and the agent leave each other’s labels alone', async () => {
    expect((await kubectl('label', 'host', 'lab', 'zone=north')).code).toBe(0)
    await lab.restart('SIGTERM')
    await lab.until('it was looked at', async () => (await hostOf(lab, 'lab')).status !== undefined)
    expect((await hostOf(lab, 'lab')).metadata.labels).toMatchObject({
      ...{ zone: 'north', 'kubernetes.io/hostname': 'lab' },
    })
  })

  test('drain and host fence say that there is no other host', async () => {
    await lab.create(tiny('m'))
    const running = await lab.running('m')
    const drained = await lab.cli('drain', 'lab')
    expect(drained).toMatchObject({ code: 1, stdout: '' })
    expect(drained.stderr).toContain('host lab is the only one: its machines have nowhere to go')
    expect((await hostOf(lab, 'lab')).spec.unschedulable).toBe(false)
    const fenced = await lab.cli('host', 'fence', 'lab', '--confirm-off')
    expect(fenced).toMatchObject({ code: 1, stdout: '' })
    expect(fenced.stderr).toContain('host lab has no lease')
    const unsure = await lab.cli('host', 'fence', 'lab')
    expect(unsure).toMatchObject({ code: 2, stdout: '' })
    expect((await lab.vm('m')).status?.process).toEqual(running.status?.process)
  })

  test('drain --force shuts down what runs, and only that', async () => {
    const { code, stdout } = await lab.cli('drain', 'lab', '--force')
    expect(stdout).toMatch(/^default\/m is asked to shut down\ndefault\/m is shut down$/m)
    expect(code).toBe(0)
    expect(lab.qemus()).toEqual([])
    expect((await lab.vm('m')).spec.runStrategy).toBe('Halted')
    await lab.cli('uncordon', 'lab')
    await lab.verb('m', 'start')
    await lab.running('m')
  })
})

describe('hosts of one etcd', () => {
  let etcd: EtcdLab
  let peerPort = 0
  let lab: Lab
  beforeAll(async () => {
    etcd = await EtcdLab.start()
    peerPort = (await freePorts(1))[0] ?? 0
    lab = await Lab.start({ flags: flags('one') })
    await lab.until('the host is registered', async () => (await hostOf(lab, 'one')).status !== undefined)
  })
  afterAll(async () => {
    await lab?.close()
    await etcd?.close()
  })

  const flags = (name: string, port = peerPort) => [
    ...['--store', 'etcd', '--etcd-endpoints', etcd.endpoints.join(','), '--host-name', name],
    ...['--peer-listen', `127.0.0.1:${port}`],
  ]

  test('a second one by the same name is refused at its start', async () => {
    const path = '/apis/coordination.k8s.io/v1/namespaces/plasmavmc-system/leases/host-one'
    const holder = async () => (await lab.client.json<Lease>('GET', path)).spec.holderIdentity
    await lab.until('its guard holds the lease', async () => (await holder())?.startsWith('one/') === true)
    const folder = join(lab.dir, 'second')
    const place = ['--data-dir', join(folder, 'd'), '--run-dir', join(folder, 'r'), '--listen', '127.0.0.1:0']
    const { code, stderr } = await lab.cli('serve', ...place, ...flags('one'))
    expect(stderr).toContain('error: --host-name: another host goes by the name one: it renews its lease')
    expect(stderr).toContain('give this one another name with --host-name')
    expect(code).toBe(1)
  })

  test('the same one comes back by its name at once', async () => {
    const before = await hostOf(lab, 'one')
    await lab.restart('SIGKILL', { flags: flags('one') })
    expect((await hostOf(lab, 'one')).metadata.annotations).toEqual(before.metadata.annotations)
  })

  test('one whose server stood still is Ready again as soon as it goes on', async () => {
    const other = await Lab.start({ flags: flags('two', 0) })
    try {
      const said = async (type: string) =>
        (await hostOf(lab, 'two')).status?.conditions.find((condition) => condition.type === type)
      await lab.until('its guard holds the lease', async () => (await said('Guarded'))?.status === 'True')
      const there = { hostSelector: { 'kubernetes.io/hostname': 'two' } }
      await lab.create(tiny('leaves', there))
      await lab.sees('leaves', 'runs', ({ status }) => status?.phase === 'Running')
      process.kill(other.serverPid, 'SIGSTOP')
      await lab.until('it is silent', async () => (await said('Ready'))?.reason === 'AgentSilent')
      expect(await said('Guarded')).toMatchObject({ status: 'True', reason: 'LeaseHeld' })
      await lab.remove('leaves')
      await lab.sees(
        'leaves',
        'says what its deletion waits for',
        ({ status }) => status?.reason === 'AgentSilent',
      )
      expect((await lab.cli('describe', 'vm', 'leaves')).stdout).toMatch(
        /^Why: +it is being deleted, but host two has a server that gives no sign of life: its QEMU runs on there, and the finalizer /m,
      )
      process.kill(other.serverPid, 'SIGCONT')
      const since = performance.now()
      await lab.until('it is Ready', async () => (await said('Ready'))?.status === 'True')
      // Its next look at itself would have been ten seconds later.
      expect(performance.now() - since).toBeLessThan(5_000)
      const { stdout } = await lab.cli('describe', 'host', 'two')
      expect(stdout).toMatch(/^ +Guarded +True /m)
      await lab.gone('leaves')
    } finally {
      process.kill(other.serverPid, 'SIGCONT')
      await other.close()
    }
  })
})

import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { changedTaints, taintOf } from '../../src/cli/taint.ts'
import { Cluster } from './cluster.ts'

let cluster: Cluster
beforeEach(async () => {
  cluster = await Cluster.start(['a', 'b'])
})
afterEach(() => cluster.close())

const rowOf = async (name: string) => {
  const { out } = await cluster.run('get', 'hosts')
  return out.split('\n').find((line) => line.startsWith(`${name} `))
}

describe('cordon and uncordon', () => {
  test('say what they did, and what was so before', async () => {
    expect(await cluster.run('cordon', 'a')).toEqual({
      code: 0,
      out: 'host.plasmavmc.io/a cordoned\n',
      err: '',
    })
    expect((await cluster.host('a')).spec.unschedulable).toBe(true)
    expect((await cluster.run('cordon', 'host/a')).out).toBe('host.plasmavmc.io/a already cordoned\n')
    expect(await rowOf('a')).toMatch(/^a +Ready,SchedulingDisabled +/)
    expect((await cluster.run('uncordon', 'a')).out).toBe('host.plasmavmc.io/a uncordoned\n')
    expect((await cluster.host('a')).spec.unschedulable).toBe(false)
    expect(await rowOf('a')).toMatch(/^a +Ready +/)
  })

  test('one that is not there does not hold up the others', async () => {
    const { code, out, err } = await cluster.run('cordon', 'a', 'nope', 'b')
    expect({ code, out }).toEqual({
      ...{ code: 1, out: 'host.plasmavmc.io/a cordoned\nhost.plasmavmc.io/b cordoned\n' },
    })
    expect(err).toBe('Error from server (NotFound): hosts.plasmavmc.io "nope" not found\n')
  })

  test('with -o json they print the host, or a list', async () => {
    const one = JSON.parse((await cluster.run('cordon', 'a', '-o', 'json')).out)
    expect(one).toMatchObject({ kind: 'Host', metadata: { name: 'a' }, spec: { unschedulable: true } })
    const both = JSON.parse((await cluster.run('cordon', 'a', 'b', '-o', 'json')).out)
    expect(both.items.map((host: { metadata: { name: string } }) => host.metadata.name)).toEqual(['a', 'b'])
  })

  test('what is no host is a mistake of who typed it', async () => {
    expect(await cluster.run('cordon', 'vm/a')).toMatchObject({
      code: 2,
      err: expect.stringContaining('is no host'),
    })
    expect(await cluster.run('cordon')).toMatchObject({ code: 2 })
  })
})

describe('taint', () => {
  test('sets, changes and removes', async () => {
    expect((await cluster.run('taint', 'a', 'gpu=yes:NoSchedule', 'slow:PreferNoSchedule')).out).toBe(
      'host.plasmavmc.io/a tainted\n',
    )
    expect((await cluster.host('a')).spec.taints).toEqual([
      { key: 'gpu', value: 'yes', effect: 'NoSchedule' },
      { key: 'slow', value: '', effect: 'PreferNoSchedule' },
    ])
    const other = await cluster.run('taint', 'a', 'gpu=no:NoSchedule')
    expect(other).toMatchObject({ code: 1, err: expect.stringContaining('is there with the value "yes"') })
    expect((await cluster.run('taint', 'a', 'gpu=no:NoSchedule', '--overwrite')).code).toBe(0)
    expect((await cluster.run('taint', 'a', 'gpu-', 'slow:PreferNoSchedule-')).out).toBe(
      'host.plasmavmc.io/a untainted\n',
    )
    expect((await cluster.host('a')).spec.taints).toEqual([])
    expect(await cluster.run('taint', 'a', 'gpu-')).toMatchObject({ code: 1 })
  })

  test.each(['=x:NoSchedule', 'gpu=1', 'gpu:Never', 'gpu:', 'a:b:c', 'a=b=c:NoSchedule'])(
    '%s is no taint',
    async (word) => {
      expect(() => taintOf(word)).toThrow()
      expect((await cluster.run('taint', 'a', word)).code).toBe(2)
    },
  )

  test('a key has one taint for each effect', () => {
    const both = changedTaints([], [taintOf('k=1:NoSchedule'), taintOf('k=2:PreferNoSchedule')], false)
    expect(both).toHaveLength(2)
    expect(changedTaints(both, [taintOf('k:NoSchedule-')], false)).toEqual([
      { key: 'k', value: '2', effect: 'PreferNoSchedule' },
    ])
    expect(changedTaints(both, [taintOf('k-')], false)).toEqual([])
  })
})

describe('maintenance', () => {
  const announce = (until: string) => cluster.setLease('a', {}, { 'plasmavmc.io/maintenance': until })

  test('is over when the guard says so, and not before', async () => {
    const running = cluster.run('maintenance', 'a', '--for', '30m', '--reason', 'new switch')
    let until = ''
    await expect
      .poll(async () => (await cluster.host('a')).spec.maintenance?.reason, { timeout: 20_000 })
      .toBe('new switch')
    until = (await cluster.host('a')).spec.maintenance?.until ?? ''
    expect(Date.parse(until) - Date.now()).toBeGreaterThan(20 * 60_000)
    expect(await Promise.race([running, 'still waits'])).toBe('still waits')
    await announce(until)
    const { code, out } = await running
    expect(code).toBe(0)
    expect(out).toContain(`is in maintenance until ${until} (30m)`)
    expect(out).not.toContain('no lease')
    expect(await rowOf('a')).toMatch(/^a +Ready,Maintenance +/)
  })

  test('of a host without a lease is only noted', async () => {
    await cluster.setLease('a', { holderIdentity: '' })
    expect((await cluster.run('maintenance', 'a', '--for', '5m')).out).toContain('It holds no lease')
    expect((await cluster.run('maintenance', 'a', '--end')).out).toBe(
      'host.plasmavmc.io/a is out of maintenance\n',
    )
    expect((await cluster.host('a')).spec.maintenance).toBeUndefined()
    expect((await cluster.run('maintenance', 'a', '--end')).out).toContain('was not in maintenance')
  })

  test.each([
    [['maintenance', 'a'], '--for is missing'],
    [['maintenance', 'a', '--for', 'soon'], 'is no duration'],
    [['maintenance', 'a', '--for', '-5'], 'is no time to come'],
    [['maintenance', 'a', '--end', '--reason', 'x'], '--reason goes without --end'],
    [['maintenance', 'a', 'b', '--for', '1m'], 'too many arguments'],
  ])('%j is a mistake', async (argv, said) => {
    const { code, err } = await cluster.run(...argv)
    expect(err).toContain(said)
    expect(code).toBe(2)
  })
})

test('describe host tells of the lease, the promise, the machines and the evidence', async () => {
  await cluster.machine('web', 'a', { recovery: { onHostLoss: 'Failover' } }, { onHostLoss: 'Failover' })
  const { code, out } = await cluster.run('describe', 'host', 'a')
  expect(code).toBe(0)
  expect(out).toMatch(/^Lease: +held by a, epoch 1, renewed .* ago$/m)
  expect(out).toMatch(
    /^Promise: +when it is cut off it stops its machines that fail over by its guard, 0\.6 s after its last renewal, within 0\.3 s$/m,
  )
  expect(out).toMatch(/^Guard: +answers at 192\.0\.2\.1:7444; its agent is alive$/m)
  expect(out).toMatch(/^Members: +a, b$/m)
  expect(out).toMatch(/^ +default\/web +Running +Failover +Failover +1 /m)
  expect((await cluster.run('describe', 'vm', 'web')).out).toMatch(
    /^Host: +a, since epoch 1 of its lease\nOn host loss: +Failover: it is stopped there and started on another$/m,
  )
})

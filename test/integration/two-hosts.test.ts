import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { describe, expect } from 'vitest'
import type { Processes, Tenure } from '../../src/host/ports.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { FenceEvidence } from '../../src/resources/fence-evidence.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { ApiError } from '../../src/store/errors.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { type Name, type TwoHosts, test } from './two-hosts.ts'

const never = new Promise<never>(() => {})
const lost: Tenure = { state: 'lost', why: 'not renewed for 6 s' }
const held = (epoch: number): Tenure => ({ state: 'held', epoch, leftMs: 5_000 })

/** A port with another member in place of one; all else is the real one's. */
function withMember<T extends object, K extends keyof T>(real: T, member: K, other: T[K]): T {
  return new Proxy(real, {
    get: (target, name) => {
      if (name === member) return other
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

async function runningOnA(hosts: TwoHosts, spec: Record<string, unknown> = {}) {
  const agent = hosts.agent('host-a')
  await hosts.create('host-a', spec)
  const status = await hosts.untilRunning('host-a')
  return { agent, status, qemu: hosts.qemus('host-a')[0] }
}

describe('a machine that is placed', () => {
  test('is started by its host alone, under the epoch that is held', async ({ hosts }) => {
    const [a, b] = [hosts.agent('host-a'), hosts.agent('host-b')]
    await hosts.create('host-b', { recovery: { onHostLoss: 'Failover' } })
    const status = await hosts.untilRunning('host-b')
    expect(status).toMatchObject({ placementEpoch: 40, onHostLoss: 'Failover', restarts: 0 })
    expect(hosts.qemus()).toMatchObject([{ runDir: hosts.runDir('host-b'), epoch: 40 }])
    const record = JSON.parse(readFileSync(hosts.folder('host-b').launch, 'utf8'))
    expect(record).toMatchObject({
      ...{ epoch: 40, hostName: 'host-b' },
      manifest: { spec: { recovery: { onHostLoss: 'Failover' } } },
    })
    expect(existsSync(hosts.folder('host-a').dir)).toBe(false)
    await Promise.all([a.stop(), b.stop()])
  })

  test('on no host is started by none', async ({ hosts }) => {
    const [a, b] = [hosts.agent('host-a'), hosts.agent('host-b')]
    await hosts.create()
    await Promise.all([a.vms.whenSynced(), b.vms.whenSynced()])
    await hosts.untilTrue('both know it', () =>
      a.vms.list().length + b.vms.list().length === 2 ? true : undefined,
    )
    await hosts.place('host-a')
    await hosts.untilRunning('host-a')
    expect(hosts.starts()).toBe(1)
  })

  test('is taken up under the new epoch when its host holds a lease again that was taken', async ({
    hosts,
  }) => {
    const { qemu } = await runningOnA(hosts)
    hosts.tenures['host-a'] = lost
    hosts.tenures['host-a'] = held(4)
    await hosts.untilStatus('epoch 4', ({ placementEpoch }) => placementEpoch === 4)
    expect(hosts.qemus()).toMatchObject([{ pid: qemu?.pid }])
  })
})

describe('the lease is lost', () => {
  test('before a start: nothing is started until it is held again', async ({ hosts }) => {
    hosts.tenures['host-a'] = lost
    hosts.agent('host-a')
    await hosts.create('host-a')
    await hosts.untilStatus('waiting', ({ reason }) => reason === 'LeaseLost')
    expect(hosts.starts()).toBe(0)
    hosts.tenures['host-a'] = held(3)
    expect(await hosts.untilRunning('host-a')).toMatchObject({ restarts: 0 })
  })

  test.for([
    ['is lost', lost],
    ['was taken, and is held again', held(4)],
  ] as const)(
    'between the record of a launch and the fork, where it %s',
    async ([_what, then], { hosts }) => {
      let launches = 0
      const wrap = (real: Processes) =>
        withMember(real, 'launch', (request) => {
          launches += 1
          if (launches === 1) hosts.tenures['host-a'] = then
          return real.launch(request)
        })
      hosts.agent('host-a', { wrap })
      await hosts.create('host-a')
      if (then.state === 'lost') {
        const status = await hosts.untilStatus('waiting', ({ reason }) => reason === 'LeaseLost')
        expect(status.launch).toBeUndefined()
        expect(hosts.starts()).toBe(0)
        hosts.tenures['host-a'] = held(4)
      }
      const status = await hosts.untilRunning('host-a')
      expect(status).toMatchObject({ placementEpoch: 4, restarts: 0 })
      expect(status.backoff).toBeUndefined()
      expect(hosts.qemus()).toMatchObject([{ epoch: 4 }])
      expect([launches, hosts.starts()]).toEqual([2, 1])
    },
  )

  test('while it runs: the agent leaves it alone', async ({ hosts }) => {
    const { agent, qemu } = await runningOnA(hosts)
    hosts.tenures['host-a'] = lost
    await agent.passes(3)
    expect(hosts.qemus()).toMatchObject([{ pid: qemu?.pid }])
    expect((await hosts.status()).phase).toBe('Running')
  })
})

describe('a stray', () => {
  test('is stopped when its machine goes to another host, which then starts it', async ({ hosts }) => {
    await runningOnA(hosts)
    hosts.agent('host-b')
    await hosts.place('host-b')
    const status = await hosts.untilRunning('host-b')
    expect(hosts.qemus()).toMatchObject([{ runDir: hosts.runDir('host-b') }])
    expect(status.placementEpoch).toBe(40)
    await hosts.untilTrue('its folder is gone', () => !existsSync(hosts.folder('host-a').dir) || undefined)
    const events = await hosts.events()
    expect(events.filter((one) => one.includes('Stray'))).toEqual([
      expect.stringMatching(
        /^Warning Stray the QEMU with pid \d+ on host host-a was stopped at once: .*host-b/,
      ),
    ])
  })

  test('is found when the agent starts, and its folder goes', async ({ hosts }) => {
    const { agent } = await runningOnA(hosts)
    await agent.stop()
    await hosts.place('host-b')
    expect(hosts.qemus('host-a')).toHaveLength(1)
    hosts.agent('host-a')
    await hosts.untilGone('host-a')
    await hosts.untilTrue('its folder is gone', () => !existsSync(hosts.folder('host-a').dir) || undefined)
  })

  test('that was ended while no agent ran leaves no folder', async ({ hosts }) => {
    const { agent, qemu } = await runningOnA(hosts)
    await agent.stop()
    process.kill(qemu?.pid ?? 0, 'SIGKILL')
    await hosts.untilGone('host-a')
    await hosts.place('host-b')
    hosts.agent('host-a')
    await hosts.untilTrue('its folder is gone', () => !existsSync(hosts.folder('host-a').dir) || undefined)
  })

  test('is stopped when its machine was taken by evidence, before it has another host', async ({ hosts }) => {
    const { agent } = await runningOnA(hosts)
    await agent.stop()
    await taken(hosts, 'host-a', 4)
    hosts.agent('host-a')
    await hosts.untilGone('host-a')
    expect((await hosts.status()).hostName).toBeUndefined()
  })
})

/** Does what a leader does with the machine of a host that it takes for dead. */
async function taken(hosts: TwoHosts, host: Name, epoch: number): Promise<void> {
  const name = `${host}-${epoch}`
  await hosts.objects.create(FenceEvidence, {
    ...{ apiVersion: apiVersionOf(FenceEvidence), kind: FenceEvidence.kind, metadata: { name } },
    spec: { host, epoch, proof: 'Operator', by: 'test', at: '', votes: [], seen: 'it looked off' },
  })
  await hosts.setStatus(({ hostName: _h, placementEpoch: _p, process: _q, launch: _l, ...status }) => ({
    ...status,
    evidence: name,
  }))
}

describe('no stray', () => {
  test('a QEMU that was launched after the evidence: it is taken up', async ({ hosts }) => {
    const { agent, qemu } = await runningOnA(hosts)
    await agent.stop()
    await taken(hosts, 'host-a', 3)
    hosts.agent('host-a')
    await hosts.untilRunning('host-a')
    expect(hosts.qemus()).toMatchObject([{ pid: qemu?.pid }])
  })

  test('a QEMU whose machine does not exist: it is an orphan', async ({ hosts }) => {
    const { agent, qemu } = await runningOnA(hosts)
    await agent.stop()
    const vm = (await hosts.get())!
    await hosts.objects.update(VirtualMachine, { ...vm, metadata: { ...vm.metadata, finalizers: [] } })
    await hosts.objects.delete(VirtualMachine, { namespace: 'default', name: 'web' })
    // Another machine of the same name is another machine.
    await hosts.create('host-b', {}, randomUUID())
    let scans = 0
    const wrap = (real: Processes) =>
      withMember(real, 'scan', () => {
        scans += 1
        return real.scan()
      })
    hosts.agent('host-a', { wrap })
    await hosts.untilTrue('it was looked for', () => scans >= 4 || undefined)
    expect(hosts.qemus()).toMatchObject([{ pid: qemu?.pid }])
  })

  test.for([
    ['the machine', VirtualMachine],
    ['the evidence', FenceEvidence],
  ] as const)('while %s can’t be read', async ([_what, kind], { hosts }) => {
    const { agent, qemu } = await runningOnA(hosts)
    await agent.stop()
    if (kind === FenceEvidence) await taken(hosts, 'host-a', 4)
    else await hosts.place('host-b')
    let failed = 0
    let fails = true
    const get: ObjectStore['get'] = (wanted, ref) => {
      if (!fails || wanted.kind !== kind.kind) return hosts.objects.get(wanted, ref)
      failed += 1
      return Promise.reject(new ApiError('ServiceUnavailable', 'no quorum'))
    }
    hosts.agent('host-a', { objects: withMember<ObjectStore, 'get'>(hosts.objects, 'get', get) })
    await hosts.untilTrue('it was asked for', () => failed >= 2 || undefined)
    expect(hosts.qemus()).toMatchObject([{ pid: qemu?.pid }])
    fails = false
    await hosts.untilGone('host-a')
  })

  test('where there is no other host', async ({ hosts }) => {
    const { agent, qemu } = await runningOnA(hosts)
    await agent.stop()
    await hosts.place('host-b')
    const next = hosts.agent('host-a', { tenure: () => ({ state: 'single' }) })
    await next.passes(2)
    expect(hosts.qemus()).toMatchObject([{ pid: qemu?.pid }])
  })
})

describe('a machine that is asked to move', () => {
  test('is shut down, given up and started on the other host, and nothing of it is left', async ({
    hosts,
  }) => {
    await runningOnA(hosts)
    hosts.agent('host-b')
    await hosts.request('Move')
    const given = await hosts.untilStatus('given up', ({ hostName }) => hostName === undefined)
    expect(given).toMatchObject({
      ...{ phase: 'Pending', reason: 'Moving', power: { desired: 'Up' } },
      lastExit: { reason: 'Stopped' },
    })
    expect(given).not.toHaveProperty('process')
    expect(given).not.toHaveProperty('placementEpoch')
    expect(hosts.qemus()).toEqual([])
    await hosts.place('host-b')
    expect(await hosts.untilRunning('host-b')).toMatchObject({ restarts: 1, placementEpoch: 40 })
    await hosts.untilTrue('its folder is gone', () => !existsSync(hosts.folder('host-a').dir) || undefined)
    expect(hosts.starts()).toBe(2)
    // And back again.
    await hosts.request('Move')
    await hosts.untilStatus('given up', ({ hostName }) => hostName === undefined)
    await hosts.place('host-a')
    expect(await hosts.untilRunning('host-a')).toMatchObject({ restarts: 2, placementEpoch: 3 })
  })

  test('stays where only this host reaches its disks', async ({ hosts }) => {
    const local = [{ name: 'root', field: 'spec.disks[0].pool' }]
    const agent = hosts.agent('host-a', { localDisks: () => local })
    await hosts.create('host-a')
    await hosts.untilRunning('host-a')
    await hosts.request('Move')
    const { conditions } = await hosts.untilStatus('refused', ({ request }) => request === undefined)
    expect(conditions.find(({ type }) => type === 'Movable')).toMatchObject({
      ...{ status: 'False', reason: 'LocalDisks' },
    })
    await agent.passes(2)
    expect(hosts.qemus('host-a')).toHaveLength(1)
    expect(await hosts.events()).toContainEqual(expect.stringMatching(/^Warning MoveRefused .*spec\.disks/))
  })
})

describe('what launch.json and status say of a lost host', () => {
  const inFile = (hosts: TwoHosts) =>
    JSON.parse(readFileSync(hosts.folder('host-a').launch, 'utf8')).manifest.spec.recovery.onHostLoss

  /** An agent that dies right before or right after it has rewritten launch.json. */
  async function dies(hosts: TwoHosts, when: 'before' | 'after', from: string, to: string) {
    const { agent } = await runningOnA(hosts, { recovery: { onHostLoss: from } })
    await hosts.untilStatus(from, ({ onHostLoss }) => onHostLoss === from)
    await agent.stop()
    const reached = Promise.withResolvers<void>()
    const wrap = (real: Processes) =>
      withMember(real, 'noteSpec', async (...args) => {
        if (when === 'after') await real.noteSpec(...args)
        reached.resolve()
        return never
      })
    const dying = hosts.agent('host-a', { wrap })
    await hosts.change({ recovery: { onHostLoss: to } })
    await reached.promise
    void dying.stop()
    return { file: inFile(hosts), status: (await hosts.status()).onHostLoss }
  }

  test.for([
    // Stopped by the guard and not taken: safe. Taken and not stopped would not be.
    ['before', 'Manual', 'Failover', { file: 'Manual', status: 'Manual' }],
    ['after', 'Manual', 'Failover', { file: 'Failover', status: 'Manual' }],
    ['before', 'Failover', 'Manual', { file: 'Failover', status: 'Manual' }],
    ['after', 'Failover', 'Manual', { file: 'Manual', status: 'Manual' }],
  ] as const)('an agent dies %s the rewrite, from %s to %s', async ([when, from, to, said], { hosts }) => {
    expect(await dies(hosts, when, from, to)).toEqual(said)
    hosts.agent('host-a')
    await hosts.untilStatus(to, ({ onHostLoss }) => onHostLoss === to)
    await hosts.untilTrue('launch.json', () => inFile(hosts) === to || undefined)
    expect(hosts.starts()).toBe(1)
  })

  test('a rewrite that fails leaves what the file says, and is tried again', async ({ hosts }) => {
    let tries = 0
    const wrap = (real: Processes) =>
      withMember(real, 'noteSpec', async (...args) => {
        tries += 1
        // Written, but the agent is not told so.
        const record = await real.noteSpec(...args)
        if (tries === 1) throw new Error('no space left on device')
        return record
      })
    hosts.agent('host-a', { wrap })
    await hosts.create('host-a', { recovery: { onHostLoss: 'Failover' } })
    await hosts.untilRunning('host-a')
    await hosts.change({ recovery: { onHostLoss: 'Manual' } })
    await hosts.untilTrue('tried', () => tries > 0 || undefined)
    await hosts.change({ recovery: { onHostLoss: 'Failover' } })
    await hosts.untilStatus('Failover', ({ onHostLoss }) => onHostLoss === 'Failover')
    expect(inFile(hosts)).toBe('Failover')
  })
})

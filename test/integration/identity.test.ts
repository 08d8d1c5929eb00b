import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { reconcileHost } from '../../src/controllers/host/index.ts'
import { vmPaths } from '../../src/host/paths.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { qemuArgs } from '../../src/host/qemu-args.ts'
import { Host } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { hostName, type TestAgent } from './agent.ts'
import { BlindProcfs } from './blind-procfs.ts'
import { answersWithin, fakeQemu, type Lab, test } from './lab.ts'

function startTimeOf(pid: number): number {
  const stat = new Procfs().stat(pid)
  return stat.state === 'present' ? stat.value.startTime : 0
}

function lives(pid: number): boolean {
  const stat = new Procfs().stat(pid)
  return stat.state === 'present' && stat.value.state !== 'Z'
}

/** Starts a QEMU of the machine by hand: the same mark and uid, in a run directory of its own. */
async function secondQemu(lab: Lab): Promise<number> {
  lab.twinsWanted = true
  const paths = vmPaths(join(lab.root, 'elsewhere'), lab.uid)
  mkdirSync(paths.dir, { recursive: true })
  const machine = { vm: lab.manifest(), launchId: 'by-hand', epoch: 0, disks: new Map() }
  const { pid = 0 } = lab.spawn(fakeQemu, qemuArgs({ ...machine, paths, accelerator: 'tcg' }))
  await lab.untilTrue('two QEMUs', () => lab.qemus().length === 2 || undefined)
  return pid
}

async function hostOf(lab: Lab, agent: TestAgent): Promise<Host> {
  await agent.vms.whenSynced()
  const facts = { cpus: 2, memory: '1Gi', accelerator: 'tcg', qemuVersion: '7.2.0', agentVersion: '0' }
  const { runDir, objects, clock } = lab
  const { processes, vms } = agent
  const log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log }
  await reconcileHost({ hostName, runDir, objects, processes, vms, facts: async () => facts, clock, log })
  return objects.get(Host, { name: hostName })
}

describe('a record whose pid is another process now', () => {
  test.for([
    ['another start time', 1],
    ['the same start time, as after a wrapped clock', 0],
  ] as const)('%s: that process is never touched, the machine starts', async ([, difference], { lab }) => {
    const { pid = 0 } = lab.spawn('sleep', ['600'])
    const agent = lab.agent()
    await lab.create({ runStrategy: 'Halted' })
    await lab.untilPhase('Stopped')
    await agent.stop()
    const { bootId } = agent.processes
    const startTime = startTimeOf(pid) - difference
    const record = { launchId: 'lost', accelerator: 'tcg', startedAt: '2026-01-01T00:00:00Z', specHash: 'x' }
    await lab.setStatus((status) => ({ ...status, process: { pid, startTime, bootId, ...record } }))
    await lab.change({ runStrategy: 'Always' })
    lab.agent()
    const running = await lab.untilPhase('Running')
    expect(running.process?.pid).not.toBe(pid)
    expect(running.lastExit).toMatchObject({ reason: 'Crashed', launchId: 'lost' })
    await lab.delete()
    await lab.untilGone()
    expect(lives(pid)).toBe(true)
  })
})

describe('two QEMUs with the uid of one machine', () => {
  /** Nothing is done to either, whatever is asked. */
  async function quarantined(lab: Lab, agent: TestAgent, pids: readonly number[]): Promise<void> {
    const status = await lab.untilPhase('Unknown', ({ reason }) => reason === 'DuplicateProcess')
    for (const pid of pids) expect(status.message).toContain(String(pid))
    expect(await lab.events()).toContain('Warning DuplicateProcess')
    await lab.change({ runStrategy: 'Halted' })
    await lab.skip(7_200)
    await agent.passes(2)
    expect((await lab.status()).reason).toBe('DuplicateProcess')
    for (const pid of pids) expect(lives(pid)).toBe(true)
    const asked = new Set(lab.commands())
    expect([...asked].sort()).toEqual(['cont', 'qmp_capabilities', 'query-status'])
    await lab.change({ runStrategy: 'Always' })
  }

  test('found at the start: quarantined loudly, until one is left', async ({ lab }) => {
    const first = lab.agent()
    await lab.create()
    await lab.untilPhase('Running')
    const { pid } = lab.qemu()
    await first.stop()
    const other = await secondQemu(lab)
    // The first pass already would stop it.
    await lab.change({ runStrategy: 'Halted' })
    const agent = lab.agent()
    await quarantined(lab, agent, [pid, other])
    process.kill(other, 'SIGKILL')
    await lab.skip(3)
    const status = await lab.untilPhase('Running')
    expect(status.process?.pid).toBe(pid)
    expect(lives(pid)).toBe(true)
  })

  test('a second one appears beside one that runs', async ({ lab }) => {
    const agent = lab.agent()
    await lab.create()
    await lab.untilPhase('Running')
    const { pid } = lab.qemu()
    const other = await secondQemu(lab)
    await lab.skip(11)
    await quarantined(lab, agent, [pid, other])
    process.kill(other, 'SIGKILL')
    await lab.skip(11)
    expect((await lab.untilPhase('Running')).process?.pid).toBe(pid)
  })

  test('a machine that is to start does not, while one that somebody started lives', async ({ lab }) => {
    lab.twinsWanted = true
    const paths = vmPaths(join(lab.root, 'elsewhere'), lab.uid)
    mkdirSync(paths.dir, { recursive: true })
    const machine = { vm: lab.manifest(), launchId: 'by-hand', epoch: 0, disks: new Map() }
    const { pid = 0 } = lab.spawn(fakeQemu, qemuArgs({ ...machine, paths, accelerator: 'tcg' }))
    await lab.untilTrue('one QEMU', () => lab.qemus().length === 1 || undefined)
    const agent = lab.agent()
    await lab.create()
    await agent.passes(3)
    expect(lab.qemu().pid).toBe(pid)
    expect((await lab.status()).phase).not.toBe('Running')
  })
})

describe('the store was wiped', () => {
  test('a QEMU of ours is listed with a manifest that adopts it as it was', async ({ lab }) => {
    const first = lab.agent()
    await lab.create({ cpu: { cores: 2 } })
    await lab.untilPhase('Running')
    const { pid, launchId } = lab.qemu()
    await first.stop()
    lab.wipeStore()
    const agent = lab.agent()
    const host = await hostOf(lab, agent)
    expect(host.status?.orphans).toEqual([
      expect.objectContaining({ uid: lab.uid, pid, launchId, name: 'default/web' }),
    ])
    const manifest = JSON.parse(host.status?.orphans[0]?.manifest ?? '{}') as VirtualMachine
    expect(manifest).toMatchObject({ metadata: { name: 'web', uid: lab.uid }, spec: { cpu: { cores: 2 } } })
    expect(lab.qemu().pid).toBe(pid)
    await lab.objects.create(VirtualMachine, manifest, { restoreUid: true })
    const status = await lab.untilPhase('Running')
    expect(status).toMatchObject({ restarts: 0, process: { pid, launchId } })
    expect((await hostOf(lab, agent)).status?.orphans).toEqual([])
    expect(lab.starts()).toBe(1)
  })
})

describe('a foreign QEMU', () => {
  test.for([
    ['with no mark', 'other'],
    ['with no mark, and the name of our machine', 'default/web'],
  ] as const)('%s is never listed and never touched', async ([, name], { lab }) => {
    const uid = randomUUID()
    const pidfile = join(lab.root, 'foreign.pid')
    const { pid = 0 } = lab.spawn(fakeQemu, ['-name', name, '-uuid', uid, '-pidfile', pidfile, '-S'])
    const agent = lab.agent()
    await lab.untilTrue(
      'seen',
      async () =>
        (await agent.processes.scan()).processes.some((process) => process.uid === uid) || undefined,
    )
    await lab.create()
    await lab.untilPhase('Running')
    expect((await hostOf(lab, agent)).status?.orphans).toEqual([])
    await lab.delete()
    await lab.untilGone()
    expect(lives(pid)).toBe(true)
  })

  test('with the uid of our machine keeps it from starting, and outlives its deletion', async ({ lab }) => {
    lab.twinsWanted = true
    const pidfile = join(lab.root, 'foreign.pid')
    const { pid = 0 } = lab.spawn(fakeQemu, ['-name', 'other', '-uuid', lab.uid, '-pidfile', pidfile, '-S'])
    await lab.untilTrue('seen', () => lab.qemus().length === 1 || undefined)
    const agent = lab.agent(answersWithin)
    await lab.create()
    await agent.passes(3)
    expect(lab.qemu().pid).toBe(pid)
    await lab.delete()
    await lab.skip(7_200)
    await agent.passes(3)
    await lab.skip(7_200)
    await agent.passes(1)
    expect(lives(pid)).toBe(true)
  })
})

describe('processes can’t be read', () => {
  test('nothing is started: it is Unknown until they can', async ({ lab }) => {
    const proc = new BlindProcfs()
    proc.blind = true
    const agent = lab.agent({ proc })
    await lab.create()
    await lab.untilPhase('Unknown', ({ reason }) => reason === 'ProcessUnknown')
    await lab.skip(3)
    await agent.passes(1)
    expect(lab.starts()).toBe(0)
    proc.blind = false
    await lab.skip(3)
    await lab.untilPhase('Running')
    expect(lab.starts()).toBe(1)
  })

  test('and a machine that ran is not taken for gone', async ({ lab }) => {
    const proc = new BlindProcfs()
    lab.agent({ proc })
    await lab.create()
    await lab.untilPhase('Running')
    const { pid } = lab.qemu()
    proc.blind = true
    await lab.untilPhase('Unknown', ({ reason }) => reason === 'ProcessUnknown')
    proc.blind = false
    await lab.skip(3)
    expect((await lab.untilPhase('Running')).process?.pid).toBe(pid)
    expect(lab.starts()).toBe(1)
  })
})

import { afterEach, beforeEach, expect, test } from 'vitest'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { Cluster } from './cluster.ts'

let cluster: Cluster
afterEach(() => cluster.close())
beforeEach(async () => {
  cluster = await Cluster.start(['a', 'b'])
})

const shared = { disks: [{ name: 'root', size: '1Gi', pool: 'san' }] }
const local = { disks: [{ name: 'root', size: '1Gi', pool: 'ssd' }] }
const ready = (pool: string) => ({ disks: [{ name: 'root', state: 'Ready', path: `/pools/${pool}/x` }] })

/** Plays the agent of host a, which gives up what is asked to move, and a leader that puts it on b. */
function playMoves(): void {
  cluster.play(async (vm) => {
    const { name } = vm.metadata
    if (vm.status?.request?.action === 'Move')
      await cluster.setStatus(name, ({ request: _r, process: _p, hostName: _h, ...rest }) => ({
        ...rest,
        phase: 'Pending',
      }))
    else if (vm.status && vm.status.hostName === undefined)
      await cluster.setStatus(name, (status) => ({ ...status, hostName: 'b', phase: 'Starting' }))
  })
}

/** Plays an agent that shuts down what is to be halted. */
function playStops(): void {
  cluster.play(async ({ metadata, spec, status }) => {
    if (spec.runStrategy === 'Halted' && status?.process)
      await cluster.setStatus(metadata.name, ({ process: _p, ...rest }) => ({ ...rest, phase: 'Stopped' }))
  })
}

test('each machine moves, and it says where each went', async () => {
  await cluster.pool('san', true)
  await cluster.machine('web', 'a', shared, ready('san'))
  await cluster.machine('db', 'a')
  await cluster.machine('elsewhere', 'b')
  playMoves()
  const { code, out, err } = await cluster.run('drain', 'a')
  expect({ code, err }).toEqual({ code: 0, err: '' })
  const lines = out.trim().split('\n')
  expect(lines[0]).toBe('host.plasmavmc.io/a cordoned')
  expect(lines.at(-1)).toBe('host.plasmavmc.io/a drained')
  for (const name of ['web', 'db']) {
    expect(lines).toContain(`default/${name} is asked to move`)
    expect(lines).toContain(`default/${name} moved to b`)
  }
  expect(out).not.toContain('elsewhere')
  expect((await cluster.host('a')).spec.unschedulable).toBe(true)
})

test('machines whose disks are on this host only are named up front, are not asked, and make it fail', async () => {
  await cluster.pool('ssd', false)
  await cluster.machine('db', 'a', local, ready('ssd'))
  await cluster.machine('web', 'a')
  playMoves()
  const { code, out, err } = await cluster.run('drain', 'a')
  expect(code).toBe(1)
  expect(out).toContain('default/db stays: disk root is on this host only (spec.disks[0].pool)\n')
  expect(out.indexOf('default/db stays')).toBeLessThan(out.indexOf('default/web is asked to move'))
  expect(err).toBe(
    'error: host a is not drained because of 1 machine:\n  default/db: disk root is on this host only (spec.disks[0].pool)\nthe host stays cordoned; to undo: plasmavmc uncordon a; to shut down those whose disks are here only: plasmavmc drain a --force\n',
  )
  expect((await cluster.vm('db')).status?.request).toBeUndefined()
})

test('--force shuts those down, and they stay down', async () => {
  await cluster.pool('ssd', false)
  await cluster.machine('db', 'a', local, ready('ssd'))
  playStops()
  const { code, out } = await cluster.run('drain', 'a', '--force')
  expect(out).toContain('default/db is asked to shut down\ndefault/db is shut down\n')
  expect(code).toBe(0)
  expect((await cluster.vm('db')).spec.runStrategy).toBe('Halted')
})

test('a machine that is down already stays where its disks are', async () => {
  await cluster.pool('ssd', false)
  await cluster.machine('db', 'a', { ...local, runStrategy: 'Halted' }, { ...ready('ssd'), phase: 'Stopped' })
  await cluster.setStatus('db', ({ process: _p, ...rest }) => rest)
  const { code, out } = await cluster.run('drain', 'a')
  expect(out).toContain('default/db is down, and stays: disk root is on this host only')
  expect(code).toBe(0)
})

test('a machine that no other host takes is not shut down for nothing', async () => {
  await cluster.machine('big', 'a', { memory: '12Gi' })
  await cluster.machine('there', 'b', { memory: '8Gi' })
  const { code, out, err } = await cluster.run('drain', 'a')
  expect(code).toBe(1)
  expect(out).toMatch(/^default\/big stays: no other host takes it: .*memory/m)
  expect(err).toMatch(/default\/big: no other host takes it/)
  expect(err).not.toContain('--force')
  expect((await cluster.vm('big')).status?.request).toBeUndefined()
})

test('of two that would fit alone, the one that would not fit any more stays', async () => {
  for (const name of ['one', 'two']) await cluster.machine(name, 'a', { memory: '10Gi' })
  playMoves()
  const { code, out } = await cluster.run('drain', 'a')
  expect(code).toBe(1)
  expect(out.match(/ moved to b$/gm)).toHaveLength(1)
  expect(out.match(/ stays: no other host takes it/g)).toHaveLength(1)
})

test('a host that does not do what it is asked is not asked for ever', async () => {
  await cluster.machine('web', 'a')
  let asked = 0
  cluster.play(async (vm: VirtualMachine) => {
    if (!vm.status?.request) return
    asked += 1
    await cluster.setStatus('web', ({ request: _r, ...rest }) => rest)
  })
  const { code, err } = await cluster.run('drain', 'a')
  expect(code).toBe(1)
  expect(err).toContain('default/web: its host did nothing when it was asked 3 times')
  expect(asked).toBe(3)
})

test('the time that is over is told with how each stands', async () => {
  await cluster.machine('web', 'a')
  const { code, err } = await cluster.run('drain', 'a', '--timeout', '500ms')
  expect(code).toBe(1)
  expect(err).toMatch(/default\/web: Running, after 0\.5 s/)
})

test('Ctrl-C says how things stand and how to undo them', async () => {
  await cluster.machine('web', 'a')
  const stop = new AbortController()
  const running = cluster.runUntil(stop.signal, 'drain', 'a')
  await expect
    .poll(async () => (await cluster.vm('web')).status?.request?.action, { timeout: 20_000 })
    .toBe('Move')
  stop.abort(new Error('stopped by SIGINT'))
  const { code, err } = await running
  expect(code).toBe(1)
  expect(err).toBe(
    'stopped waiting: host a stays cordoned, and these go on leaving it or shutting down: default/web\nto go on: plasmavmc drain a; to undo the cordon: plasmavmc uncordon a\n',
  )
})

test('-o json tells what became of each, and nothing else', async () => {
  await cluster.pool('ssd', false)
  await cluster.machine('db', 'a', local, ready('ssd'))
  await cluster.machine('web', 'a')
  playMoves()
  const { code, out, err } = await cluster.run('drain', 'a', '-o', 'json')
  expect(code).toBe(1)
  expect(JSON.parse(out)).toEqual({
    host: 'a',
    drained: false,
    machines: [
      { machine: 'default/db', outcome: 'stays', message: expect.stringContaining('disk root') },
      { machine: 'default/web', outcome: 'left', message: 'moved to b' },
    ],
  })
  expect(JSON.parse(err)).toMatchObject({ kind: 'Status', reason: 'NotDrained' })
})

test('the only host has nowhere to drain to, and is not cordoned for that', async () => {
  const alone = await Cluster.start(['a'])
  await alone.machine('web', 'a')
  const { code, err } = await alone.run('drain', 'a')
  expect(code).toBe(1)
  expect(err).toMatch(/^error: host a is the only one: its machines have nowhere to go\n/)
  expect((await alone.host('a')).spec.unschedulable).toBe(false)
  await alone.close()
})

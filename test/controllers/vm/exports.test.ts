import { describe, expect, test } from 'vitest'
import { withOpenExports } from '../../../src/controllers/vm/exports.ts'
import { applied, specDiff, wordsOf } from '../../../src/controllers/vm/live-changes.ts'
import { lateWrites } from '../../../src/host/late-writes.ts'
import type { DiskState } from '../../../src/host/ports.ts'
import {
  absent,
  alive,
  condition,
  machine,
  planOf,
  process,
  record,
  recorded,
  runningMachine,
  spec,
  time,
  unknown,
  verbs,
} from './fixture.ts'

const disk = (exportName: string, more: object = {}) => ({
  ...{ name: 'root', format: 'raw', nbd: { host: 'NAS', exportName } },
  ...more,
})
const of = (exportName: string, more: object = {}) => ({ disks: [disk(exportName, more)] })
const key = (exportName: string) => `nas:10809/${exportName}`
const ready: DiskState = { name: 'root', path: 'nbd://NAS:10809/x', state: 'ready' }
const ranWith = (exportName: string) => alive('running', { record: record(spec(of(exportName))) })

describe('the exports that a machine holds', () => {
  test('stand in its status before its QEMU is started, and no more once that is proven gone', () => {
    const next = planOf(machine(of('x')), absent, { disks: [ready] })
    expect(verbs(next)).toEqual(['launch'])
    expect(next.status).toMatchObject({ exports: [key('x')], launch: { id: 'l-2' } })
    const halted = { ...of('x'), runStrategy: 'Halted' }
    const gone = planOf(machine(halted, { process, exports: [key('x')] }), absent, { disks: [ready] })
    expect(gone.status).not.toHaveProperty('exports')
  })

  test('are those that it runs with, whatever is declared by now', () => {
    const vm = runningMachine(of('y'), { exports: [key('x')] })
    expect(planOf(vm, ranWith('x')).status.exports).toEqual([key('x')])
    expect(planOf(runningMachine({}, { exports: [key('x')] }), ranWith('x')).status.exports).toEqual([
      key('x'),
    ])
    expect(
      planOf(runningMachine({}, { exports: [key('x')] }), alive('running', { record: record(spec()) }))
        .status,
    ).not.toHaveProperty('exports')
  })

  test('are all that it may have where that is not known', () => {
    const vm = runningMachine(of('y'), { exports: [key('x')] })
    expect(planOf(vm, alive()).status.exports).toEqual([key('x'), key('y')])
    expect(planOf(vm, unknown).status.exports).toEqual([key('x')])
  })

  test('stay while the host may not be the one on which it ran', () => {
    const launch = { id: 'l-1', at: time(), bootId: 'another' }
    const vm = machine(of('x'), { launch, exports: [key('x')], hostName: 'host-a' })
    const next = planOf(vm, absent, { tenure: { state: 'lost', why: '' } })
    expect(next.status.exports).toEqual([key('x')])
  })

  test('are none where it only reads', () => {
    const next = planOf(machine(of('x', { readOnly: true })), absent, { disks: [ready] })
    expect(next.status).not.toHaveProperty('exports')
  })
})

describe('a host that may send what a dead QEMU wrote', () => {
  const failover = { ...of('x'), recovery: { onHostLoss: 'Failover' } }
  const late = {
    lateWrites: 'tcp_orphan_retries is 0',
    tenure: { state: 'held', epoch: 7, leftMs: 5_000 },
  } as const
  const kept = { record: record(spec(failover)) }

  test('does not promise that it may be started elsewhere, and says why', () => {
    const start = planOf(machine(failover, { hostName: 'host-a' }), absent, { ...late, disks: [ready] })
    expect(verbs(start)).toEqual(['launch'])
    expect(start.status.onHostLoss).toBe('Manual')
    expect(start.happenings).toMatchObject([
      { reason: 'FailoverUnsafe', message: expect.stringContaining('tcp_orphan_retries is 0') },
    ])
    const vm = runningMachine(failover, { hostName: 'host-a', onHostLoss: 'Failover' })
    expect(planOf(vm, alive('running', kept), late).status.onHostLoss).toBe('Manual')
  })

  test('promises it once it does not', () => {
    const vm = runningMachine(failover, { hostName: 'host-a', onHostLoss: 'Manual' })
    const { lateWrites: _, ...safe } = late
    expect(planOf(vm, alive('running', kept), safe).status.onHostLoss).toBe('Failover')
  })

  test.each([
    ['0\n', false],
    ['8\n', false],
    ['1\n', true],
  ])('is told by the kernel: %j', (value, isSafe) => {
    expect(lateWrites(() => value) === undefined).toBe(isSafe)
  })

  test('is one of which that can’t be read', () => {
    expect(
      lateWrites(() => {
        throw new Error('EACCES')
      }),
    ).toMatch(/can't be read: EACCES; set it: sysctl/)
  })
})

describe('before a start', () => {
  test('an answer of its server that is too old is asked for again', () => {
    const next = planOf(machine(of('x')), absent, { disks: [{ ...ready, stale: true }] })
    expect(verbs(next)).toEqual(['prepareDisks'])
    expect(next.status).toMatchObject({ phase: 'Provisioning' })
    expect(condition(next, 'DisksReady')?.status).toBe('True')
    expect(next.status.disks).toEqual([{ name: 'root', path: ready.path, state: 'Ready' }])
  })

  test('a server is left alone while QEMU may have been started', () => {
    const vm = machine(of('x'), { launch: { id: 'l-1', at: time(), bootId: 'boot-1' }, exports: [key('x')] })
    const next = planOf(vm, absent, { disks: [{ ...ready, stale: true }], launching: true })
    expect(verbs(next)).toEqual([])
    expect(next.status.exports).toEqual([key('x')])
  })

  test.each(['DiskInUse', 'ClaimsUnknown'])('a launch that was given up for %s is no failure', (code) => {
    const launch = { id: 'l-1', at: time(), bootId: 'boot-1' }
    const exit = { reason: 'Crashed', at: time(), launchId: 'l-0' } as const
    const vm = machine(of('x'), { launch, lastExit: exit, restarts: 3, exports: [key('x')] })
    const next = planOf(vm, absent, {
      disks: [ready],
      launchError: { launchId: 'l-1', code, message: '' },
      diskClaim: { by: 'default/b', field: 'spec.disks[0].nbd', path: key('x') },
    })
    expect(next.status).toMatchObject({ phase: 'Pending', reason: 'DiskInUse', restarts: 2, lastExit: exit })
    expect(next.status).not.toHaveProperty('launch')
    expect(next.status).not.toHaveProperty('exports')
    const again = planOf(recorded(vm, next), absent, { disks: [ready] })
    expect(verbs(again)).toEqual(['launch'])
  })
})

describe('what is seen of an export', () => {
  const looked: DiskState[] = [{ name: 'root', state: 'absent' }]
  test('is that it is there, while a QEMU has it open or may', () => {
    const open = [{ ...ready }]
    expect(withOpenExports(looked, machine(of('x')), ranWith('x'))).toEqual(open)
    expect(withOpenExports(looked, machine(of('x')), alive())).toEqual(open)
    expect(withOpenExports(looked, machine(of('x')), unknown)).toEqual(open)
  })

  test('is what its server said, otherwise; nobody is asked while a QEMU has another', () => {
    expect(withOpenExports(looked, machine(of('x')), absent)).toEqual(looked)
    expect(withOpenExports(looked, machine(of('y')), ranWith('x'))).toEqual([
      { name: 'root', state: 'absent', message: 'looked for before the next start' },
    ])
  })
})

test('a running machine gets an export only with its next start, and can let one go', () => {
  const words = (running: object, wanted: object) => {
    const { changes, restart, refused } = specDiff(spec({ ...running }), spec({ ...wanted }))
    return { live: changes.map(wordsOf), restart, refused }
  }
  expect(words({}, of('x'))).toEqual({ live: [], restart: ['spec.disks[root]'], refused: [] })
  expect(words(of('x'), of('y'))).toEqual({
    live: [],
    restart: ['spec.disks[root].nbd.exportName'],
    refused: [],
  })
  expect(words(of('x'), {})).toEqual({ live: ['removal of disk root'], restart: [], refused: [] })
  const blank = { disks: [{ name: 'root', format: 'raw', size: '1Gi' }] }
  expect(words(of('x'), blank)).toEqual({ live: [], restart: ['spec.disks[root].nbd'], refused: [] })
  expect(words(blank, of('x'))).toEqual({ live: ['policy'], restart: ['spec.disks[root].nbd'], refused: [] })
  const [change] = specDiff(spec(of('x')), spec({})).changes
  expect(applied(spec(of('x')), spec({}), change!).disks).toEqual([])
})

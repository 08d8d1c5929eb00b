import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { MachineFacts } from '../../../src/controllers/vm/machine-facts.ts'
import { plan } from '../../../src/controllers/vm/plan.ts'
import type { Observed, Plan, PlanEnv } from '../../../src/controllers/vm/types.ts'
import { bytesOf } from '../../../src/resources/quantity.ts'
import { runStrategies, type VirtualMachine, vmActions } from '../../../src/resources/vm.ts'
import { type Fault, World } from './world.ts'

const onOff = (kind: 'freeze' | 'mute' | 'blind' | 'deaf' | 'holds') =>
  fc.boolean().map((on): Fault => ({ kind, on }))

const specChange: fc.Arbitrary<Fault> = fc
  .record({
    disks: fc
      .subarray(['root', 'data', 'logs'])
      .chain((names) =>
        fc.tuple(
          ...names.map((name) => fc.record({ name: fc.constant(name), size: fc.constantFrom('1Gi', '2Gi') })),
        ),
      ),
    memory: fc.constantFrom('1Gi', '2Gi'),
  })
  .map((to): Fault => ({ kind: 'spec', ...to }))

const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Fault>({ kind: 'pass' }) },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom(500, 3_000, 20_000, 90_000, 400_000)
      .map((ms): Fault => ({ kind: 'tick', ms })),
  },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(
        'shutdown' as const,
        'guest-panicked' as const,
        'io-error' as const,
        'internal-error' as const,
        'watchdog' as const,
      )
      .map((does): Fault => ({ kind: 'guest', does })),
  },
  { weight: 2, arbitrary: fc.constant<Fault>({ kind: 'killQemu' }) },
  onOff('freeze'),
  onOff('mute'),
  onOff('blind'),
  onOff('deaf'),
  {
    weight: 2,
    arbitrary: fc
      .constantFrom('idle' as const, 'beforeRecord' as const, 'beforeExecute' as const, 'afterFork' as const)
      .map((when): Fault => ({ kind: 'agentCrash', when })),
  },
  fc.constant<Fault>({ kind: 'reboot' }),
  fc.constantFrom(...runStrategies).map((to): Fault => ({ kind: 'strategy', to })),
  fc.constantFrom(...vmActions).map((action): Fault => ({ kind: 'request', action })),
  { weight: 1, arbitrary: fc.constant<Fault>({ kind: 'delete' }) },
  onOff('holds'),
  { weight: 3, arbitrary: specChange },
)

/** What changes happen to a running machine in: many of them, and what may come between their steps. */
const changeFault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Fault>({ kind: 'pass' }) },
  { weight: 6, arbitrary: specChange },
  { weight: 3, arbitrary: onOff('holds') },
  { weight: 2, arbitrary: fc.constant<Fault>({ kind: 'tick', ms: 3_000 }) },
  onOff('mute'),
  fc
    .constantFrom('idle' as const, 'beforeRecord' as const, 'beforeExecute' as const)
    .map((when): Fault => ({ kind: 'agentCrash', when })),
  fc.constant<Fault>({ kind: 'killQemu' }),
)

type Planner = (vm: VirtualMachine, seen: Observed, env: PlanEnv) => Plan

/** Lets the world settle; @returns how many passes it took, or undefined where it never did. */
function settle(world: World): number | undefined {
  world.heal()
  for (let passes = 0; passes < 120; passes += 1) {
    const before = JSON.stringify([world.vm, world.qemus])
    world.pass()
    world.now += 6_000
    world.pass()
    if (JSON.stringify([world.vm, world.qemus]) === before) return passes
  }
  return undefined
}

function property(planner: Planner, faults = fault, begin: readonly Fault[] = []) {
  return fc.property(
    fc.constantFrom(...runStrategies),
    fc.array(faults, { maxLength: 40 }),
    (strategy, those) => {
      const world = new World(planner, strategy)
      for (const one of [...begin, ...those]) {
        world.apply(one)
        if (world.qemus.length > 1) throw new Error('two QEMUs for one machine')
      }
      expect(settle(world), 'settles').toBeDefined()
      const { vm, qemus } = world
      if (!vm) {
        expect(qemus).toHaveLength(0)
        return
      }
      expect(vm.metadata.deletionTimestamp, 'a deleted machine goes away').toBeUndefined()
      const desired = vm.status?.power?.desired
      if (vm.spec.runStrategy === 'Always') expect(desired).toBe('Up')
      if (vm.spec.runStrategy === 'Halted') expect(desired).toBe('Down')
      expect(qemus).toHaveLength(desired === 'Up' ? 1 : 0)
      if (desired === 'Up') expect(['Running', 'Paused']).toContain(vm.status?.phase)
      else expect(['Stopped', 'Failed']).toContain(vm.status?.phase)
      expect(vm.status?.stop, 'no stop is left under way').toBeUndefined()
      const [qemu] = qemus
      if (qemu && vm.status?.phase === 'Running') {
        const names = vm.spec.disks.map(({ name }) => `disk-${name}`)
        expect([...qemu.devices].sort(), 'the disks are those of the spec').toEqual(names.sort())
        for (const { name, size = 0 } of vm.spec.disks)
          expect(qemu.sizes.get(`disk-${name}`), name).toBe(bytesOf(size))
        expect(qemu.nodes.size, 'nothing is left open').toBe(2 * names.length)
        const condition = (type: string) => vm.status?.conditions.find((c) => c.type === type)?.status
        expect(condition('Synchronized')).toBe('True')
        const differs = qemu.record.memory !== vm.spec.memory
        expect(condition('RestartRequired')).toBe(differs ? 'True' : 'False')
        expect(qemu.record.disks, 'launch.json says so').toEqual(vm.spec.disks)
        expect(qemu.pending.adding, 'nothing is on its way in').toEqual([])
      }
    },
  )
}

/** Enough passes for a machine that is wanted up to run. */
const running = Array.from({ length: 6 }, (): Fault => ({ kind: 'pass' }))

describe('a machine in a world of faults', () => {
  test('converges, and no safety rule breaks at any step', () => {
    fc.assert(property(plan), { numRuns: 10_000 })
  })

  test('converges while its spec changes, whatever comes between', () => {
    fc.assert(property(plan, changeFault, running), { numRuns: 5_000 })
  })

  const absent = (seen: Observed): Observed => ({ ...seen, process: { state: 'absent' } })
  const mutants: Record<string, Planner> = {
    'treats unknown as absent': (vm, seen, env) =>
      plan(vm, seen.process.state === 'unknown' ? absent(seen) : seen, env),
    'relaunches without proof of death': (vm, seen, env) =>
      plan(
        vm,
        seen.process.state === 'alive' && seen.process.machine.state === 'unreachable' ? absent(seen) : seen,
        env,
      ),
    'deletes the disks of a stopped machine': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      return next.status.phase === 'Stopped'
        ? { ...next, actions: [...next.actions, { do: 'dispose' }] }
        : next
    },
    'kills what does not answer': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      if (next.status.phase !== 'Unresponsive' || seen.process.state !== 'alive') return next
      return { ...next, actions: [{ do: 'kill', identity: seen.process.identity, why: 'silent' }] }
    },
    'never escalates a stop': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      return {
        ...next,
        actions: next.actions.filter((action) => action.do !== 'kill' && action.do !== 'quit'),
      }
    },
    'changes a machine that did not answer': (vm, seen, env) => {
      const { process } = seen
      if (process.state !== 'alive' || process.machine.state === 'answered') return plan(vm, seen, env)
      const facts: MachineFacts = {
        ...{ devices: new Map(), freePorts: [], nodes: new Set(), disks: new Map(), netdevs: new Set() },
        forwards: new Map(),
      }
      const machine = { state: 'answered', status: 'running', running: true } as const
      return plan(vm, { ...seen, process: { ...process, machine, facts } }, env)
    },
    'notes what is wanted instead of what is': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      const actions = next.actions.map((action) =>
        action.do === 'noteSpec'
          ? { ...action, spec: vm.spec, pending: { adding: [], leaving: [] } }
          : action,
      )
      return { ...next, actions }
    },
    'never notes what was changed': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      return { ...next, actions: next.actions.filter((action) => action.do !== 'noteSpec') }
    },
    'prepares every disk of a running machine': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      const actions = next.actions.map((action) =>
        action.do === 'prepareDisks' ? { do: action.do } : action,
      )
      return { ...next, actions }
    },
    'asks a guest to let go what is wanted': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      const actions = next.actions.map((action) =>
        action.do === 'live' && action.key.includes('growth')
          ? { ...action, calls: [{ command: 'device_del' as const, args: { id: 'disk-root' } }] }
          : action,
      )
      return { ...next, actions }
    },
    'drops the finalizer at once': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      return vm.metadata.deletionTimestamp ? { ...next, actions: [{ do: 'dropFinalizer' }] } : next
    },
  }

  test.each(Object.entries(mutants))('a plan that %s is caught', (_name, mutant) => {
    const caught = [property(mutant), property(mutant, changeFault, running)].some(
      (one) => fc.check(one, { numRuns: 5_000 }).failed,
    )
    expect(caught).toBe(true)
  })
})

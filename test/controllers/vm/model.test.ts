import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { plan } from '../../../src/controllers/vm/plan.ts'
import type { Observed, Plan, PlanEnv } from '../../../src/controllers/vm/types.ts'
import { runStrategies, type VirtualMachine, vmActions } from '../../../src/resources/vm.ts'
import { type Fault, World } from './world.ts'

const onOff = (kind: 'freeze' | 'mute' | 'blind' | 'deaf') => fc.boolean().map((on): Fault => ({ kind, on }))

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

function property(planner: Planner) {
  return fc.property(
    fc.constantFrom(...runStrategies),
    fc.array(fault, { maxLength: 40 }),
    (strategy, faults) => {
      const world = new World(planner, strategy)
      for (const one of faults) {
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
    },
  )
}

describe('a machine in a world of faults', () => {
  test('converges, and no safety rule breaks at any step', () => {
    fc.assert(property(plan), { numRuns: 20_000 })
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
    'drops the finalizer at once': (vm, seen, env) => {
      const next = plan(vm, seen, env)
      return vm.metadata.deletionTimestamp ? { ...next, actions: [{ do: 'dropFinalizer' }] } : next
    },
  }

  test.each(Object.entries(mutants))('a plan that %s is caught', (_name, mutant) => {
    expect(fc.check(property(mutant), { numRuns: 5_000 }).failed).toBe(true)
  })
})

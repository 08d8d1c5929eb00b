import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Leader, type Mode, Model, type Op } from './model.ts'

const leader = fc.constantFrom<Leader>('leader-1', 'leader-2')

const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(500, 2_000, 5_000, 12_000).map((ms): Op => ({ do: 'tick', ms })) },
  { weight: 2, arbitrary: fc.constantFrom<Op>({ do: 'cut' }, { do: 'crash' }) },
  { weight: 2, arbitrary: fc.constantFrom<Op>({ do: 'mend' }, { do: 'boot' }) },
  {
    weight: 3,
    arbitrary: fc.record({ leader, after: fc.nat(30) }).map((of): Op => ({ do: 'pause', ...of })),
  },
  { weight: 2, arbitrary: leader.map((one): Op => ({ do: 'resume', leader: one })) },
  {
    weight: 3,
    arbitrary: fc
      .record({
        actor: fc.constantFrom<Leader | 'a'>('leader-1', 'leader-2', 'a'),
        how: fc.constantFrom('ok' as const, 'lost' as const, 'late' as const),
      })
      .map((of): Op => ({ do: 'step', ...of })),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(-3_600_000, 2_000, 3_600_000).map((ms): Op => ({ do: 'wall', ms })),
  },
  { weight: 3, arbitrary: leader.map((one): Op => ({ do: 'copy', leader: one })) },
  { weight: 2, arbitrary: fc.constantFrom<Op>({ do: 'place', on: 'a' }, { do: 'place', on: 'b' }) },
  {
    weight: 1,
    arbitrary: fc
      .record({
        name: fc.constantFrom('m', 'n', 'o'),
        as: fc.constantFrom('Failover' as const, 'Manual' as const),
      })
      .map((of): Op => ({ do: 'promise', ...of })),
  },
  { weight: 1, arbitrary: fc.boolean().map((on): Op => ({ do: 'refuse', on })) },
)

async function play(mode: Mode, ops: readonly Op[]): Promise<Model> {
  const model = new Model(mode)
  await model.begin()
  for (const one of ops) {
    await model.apply(one)
    if (model.broken !== undefined) break
  }
  return model
}

/** A failover, leaders that stop somewhere in it, a host that comes back meanwhile, leaders that go on; and then anything. */
const failover: fc.Arbitrary<Op[]> = fc
  .record({
    gone: fc.constantFrom<[Op, Op]>([{ do: 'cut' }, { do: 'mend' }], [{ do: 'crash' }, { do: 'boot' }]),
    drift: fc.constantFrom(0, 0, 900),
    before: fc.constantFrom(4_000, 8_000, 9_000, 9_500, 10_000),
    stops: fc.tuple(fc.nat(40), fc.nat(40)),
    inside: fc.array(op, { maxLength: 4 }),
    meanwhile: fc.constantFrom(2_000, 4_000, 8_000, 12_000),
    back: fc.constantFrom(500, 1_500, 3_000, 6_000),
    outside: fc.array(op, { maxLength: 12 }),
  })
  .map(({ gone: [goes, comes], drift, before, stops, inside, meanwhile, back, outside }): Op[] => [
    ...[{ do: 'drift', ms: drift } as const, goes, { do: 'tick', ms: before } as const],
    { do: 'pause', leader: 'leader-1', after: stops[0] },
    { do: 'pause', leader: 'leader-2', after: stops[1] },
    ...[...inside, { do: 'tick', ms: meanwhile } as const, comes, { do: 'tick', ms: back } as const],
    ...(['leader-1', 'leader-2'] as const).flatMap((one): Op[] => [
      { do: 'copy', leader: one },
      { do: 'resume', leader: one },
    ]),
    ...[{ do: 'tick', ms: 3_000 } as const, ...outside],
  ])

const history = fc.oneof(
  { weight: 3, arbitrary: failover },
  { weight: 1, arbitrary: fc.tuple(failover, failover).map((both) => both.flat()) },
  { weight: 1, arbitrary: fc.array(op, { maxLength: 40 }) },
)

const runs = 80

describe.each<Mode>(['guard', 'command'])('two leaders, by %s', (mode) => {
  test('never take a machine that its host may run, whatever fails and whoever comes back', {
    timeout: 600_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(history, async (ops) => {
        const model = await play(mode, ops)
        model.end()
        expect(model.broken).toBeUndefined()
      }),
      { numRuns: runs },
    )
  })

  test('never give up: a host that stays away loses all its machines in the end', {
    timeout: 600_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(history, async (ops) => {
        const model = await play(mode, ops)
        await model.settleWithoutA()
        const left = (await model.staying()).map(
          ({ metadata, status }) => `${metadata.name}: ${status?.message}`,
        )
        model.end()
        expect(model.broken).toBeUndefined()
        expect(left).toEqual([])
      }),
      { numRuns: runs / 4 },
    )
  })
})

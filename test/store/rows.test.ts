import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { KvEvent } from '../../src/store/kv.ts'
import { entryOf, entryRow, eventOf, eventRow } from '../../src/store/rows.ts'

const text = fc.string({ unit: 'binary' })
const revision = fc.integer({ min: 1, max: 2 ** 50 })
const previous = fc.record({ value: text, revision: revision.map(BigInt) })

it('entries come back as they were', () => {
  fc.assert(
    fc.property(text, revision, (value, at) => {
      expect(entryOf('/k', entryRow(BigInt(at), value))).toEqual({ key: '/k', value, revision: BigInt(at) })
    }),
  )
})

it('events come back as they were', () => {
  const common = { key: text, revision: revision.map(BigInt) }
  const event = fc.oneof(
    fc.record({ type: fc.constant('put' as const), ...common, value: text }),
    fc.record({ type: fc.constant('put' as const), ...common, value: text, previous }),
    fc.record({ type: fc.constant('delete' as const), ...common, previous }),
  )
  fc.assert(
    fc.property(event, (given) => {
      expect(eventOf(Number(given.revision), eventRow(given as KvEvent))).toEqual(given)
    }),
  )
})

it('entries of the older form are read', () => {
  const row = JSON.stringify({ r: 7, v: '{"a":"b"}' })
  expect(entryOf('/k', row)).toEqual({ key: '/k', value: '{"a":"b"}', revision: 7n })
})

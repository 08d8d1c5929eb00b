import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { commands } from '../../src/qmp/commands.ts'
import { eventData } from '../../src/qmp/events.ts'
import { runStates } from '../../src/qmp/types.ts'
import { expected, type JsonSchema, Qapi, recorded } from './qapi.ts'

const dumps = recorded()
const tables = Object.entries(commands)
const events: readonly (readonly [string, z.ZodType | undefined])[] = Object.entries(eventData)
const shape = (schema: z.ZodType) => z.toJSONSchema(schema, { io: 'input' }) as JsonSchema

function commandFaults(qapi: Qapi, name: string, command: (typeof tables)[number][1]): string[] {
  const entity = qapi.find(name, 'command')
  if (!entity) return [`${name}: QEMU has no such command`]
  return [
    ...qapi.sendable(shape(command.args), entity['arg-type']!, name),
    ...qapi.readable(shape(command.result), entity['ret-type']!, name),
    ...(command.oob === (entity['allow-oob'] ?? false) ? [] : [`${name}: out of band: ${!command.oob}`]),
  ]
}

function eventFaults(qapi: Qapi, name: string, data: z.ZodType | undefined): string[] {
  const entity = qapi.find(name, 'event')
  if (!entity) return [`${name}: QEMU has no such event`]
  if (data) return qapi.readable(shape(data), entity['arg-type']!, name)
  return qapi.names(entity['arg-type']!).map((member) => `${name}.${member}: has data after all`)
}

describe('recorded schemas', () => {
  it('are of QEMU 7.2 and of later ones', () => {
    expect(dumps.map((qapi) => qapi.version.split('.').slice(0, 2).join('.'))).toEqual([
      '7.2',
      '10.0',
      '11.1',
    ])
  })
})

describe.each(dumps)('QEMU $version', (qapi) => {
  it('takes and answers every command as our table says', () => {
    expect(tables.flatMap(([name, command]) => commandFaults(qapi, name, command))).toEqual([])
  })

  it('sends every event as our table says', () => {
    expect(events.flatMap(([name, data]) => eventFaults(qapi, name, data))).toEqual([])
  })

  it('has no run state that we do not know', () => {
    const entity = qapi.find('query-status', 'command')
    const names = qapi.names(entity!['ret-type']!, 'status')
    expect(names.length).toBeGreaterThan(10)
    expect(names.filter((name) => !runStates.some((state) => state === name))).toEqual([])
  })
})

it('has nothing in its tables that no QEMU has', () => {
  const read = [
    ...tables.flatMap(([name, { result }]) => expected(shape(result), name)),
    ...events.flatMap(([name, data]) => (data ? expected(shape(data), name) : [])),
  ]
  for (const qapi of dumps) {
    for (const [name, command] of tables) commandFaults(qapi, name, command)
    for (const [name, data] of events) eventFaults(qapi, name, data)
  }
  expect(read.filter((path) => !dumps.some((qapi) => qapi.met.has(path)))).toEqual([])
})

describe('the comparison finds', () => {
  const qapi = new Qapi('0', [
    { name: 'str', 'meta-type': 'builtin', 'json-type': 'string' },
    { name: 'int', 'meta-type': 'builtin', 'json-type': 'int' },
    { name: 'e', 'meta-type': 'enum', members: [member('on'), member('off')] },
    {
      name: 'o',
      'meta-type': 'object',
      members: [member('size'), { ...member('mode', 'e'), default: null }],
    },
    {
      name: 'u',
      'meta-type': 'object',
      tag: 'mode',
      members: [member('mode', 'e')],
      variants: [{ case: 'on', type: 'o' }],
    },
  ])

  function member(name: string, type = 'int') {
    return { name, type }
  }

  it.each<[string, z.ZodType, string]>([
    [
      'an argument that QEMU does not have',
      z.object({ size: z.int(), sise: z.int() }),
      'c.sise: QEMU has no',
    ],
    ['one that it requires', z.object({}), 'c.size: QEMU requires it'],
    ['one that we may leave out', z.object({ size: z.int().optional() }), 'c.size: QEMU requires it'],
    ['another type', z.object({ size: z.string() }), 'c.size: we send string, QEMU wants int'],
    ['fractions for whole numbers', z.object({ size: z.number() }), 'c.size: we send number'],
    ['a name', z.object({ size: z.int(), mode: z.enum(['on', 'auto']) }), 'c.mode: QEMU has no auto'],
    ['any text for a name', z.object({ size: z.int(), mode: z.string() }), 'c.mode: QEMU has no any text'],
  ])('%s, to be sent', (_, ours, fault) => {
    expect(qapi.sendable(shape(ours), 'o', 'c')).toEqual([expect.stringContaining(fault)])
  })

  it('what a variant requires', () => {
    const ours = z.discriminatedUnion('mode', [z.object({ mode: z.literal('on') })])
    expect(qapi.sendable(shape(ours), 'u', 'c')).toEqual(['c|0.size: QEMU requires it'])
  })

  it.each<[string, z.ZodType, string]>([
    ['a member that is not answered', z.object({ sise: z.number() }), 'c.sise: QEMU answers no such member'],
    ['one that may be left out', z.object({ mode: z.string() }), 'c.mode: QEMU may leave it out'],
    ['another type', z.object({ size: z.string() }), 'c.size: QEMU answers int, we read string'],
    ['a closed list of names', z.object({ mode: z.enum(['on', 'off']).optional() }), 'c.mode: a later QEMU'],
    [
      'a name that we do not know',
      z.object({
        mode: z
          .string()
          .meta({ known: ['on'] })
          .optional(),
      }),
      "c.mode: we don't know off",
    ],
  ])('%s, to be read', (_, ours, fault) => {
    expect(qapi.readable(shape(ours), 'o', 'c')).toEqual([expect.stringContaining(fault)])
  })
})

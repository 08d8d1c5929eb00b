import { Readable } from 'node:stream'
import { text as wholeOf } from 'node:stream/consumers'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { parse } from 'yaml'
import { yamlBody, yamlText } from '../../src/server/yaml-text.ts'

/** Texts that some parser takes for something else, or that break where they are not quoted. */
const odd = [
  ...['', ' ', 'y', 'Yes', 'no', 'on', 'OFF', 'true', 'False', 'null', '~', 'Null', '.inf', '-.INF', '.nan'],
  ...[
    '1',
    '-1',
    '+1',
    '007',
    '0o17',
    '0x1f',
    '0b1',
    '1_000',
    '1e3',
    '1E3',
    '.5',
    '1.',
    '-.5e3',
    '1:30',
    '12:30:45',
  ],
  ...[
    '2026-01-02',
    '2026-01-02T03:04:05Z',
    '1Gi',
    '10.0.0.1',
    '<<',
    '=',
    '-',
    '- a',
    '--- a',
    '...',
    '?',
    '? a',
  ],
  ...[
    ': a',
    'a: b',
    'a:',
    'a:b',
    'a #b',
    '#a',
    '&a',
    '*a',
    '!a',
    '|',
    '>',
    '%a',
    '@a',
    '`a',
    '"a',
    "'a",
    '{a',
    '[a',
  ],
  ...[
    'a, b',
    'a ',
    ' a',
    'a\n',
    'a\nb',
    'a\n\n',
    '\na',
    '\n',
    ' a\nb',
    '\ta\nb',
    'a\n b\n',
    'a\r\nb',
    'a\n---\nb',
    'a\n...\n',
  ],
  ...[
    '\u0000',
    '\u0085',
    'a\u2028b',
    '\ufeff',
    'a\nb\u0085',
    '\ud800',
    'ä€𝄞',
    'a\n𝄞',
    '\u007f',
    '\\',
    '\\n',
    'a\t',
    '\ta',
  ],
]
const piece = fc.oneof(
  fc.constantFrom(...odd),
  fc.string({ unit: 'binary' }),
  fc
    .array(fc.constantFrom('a', 'B', '1', ' ', '\n', ':', '#', '-', '.', '"', "'", ',', '\t'), {
      maxLength: 8,
    })
    .map((all) => all.join('')),
)
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(null, true, false),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.integer(),
    piece,
    tie('list'),
    tie('map'),
  ),
  list: fc.array(tie('value'), { maxLength: 4 }),
  map: fc
    .array(
      fc.tuple(
        fc.oneof(piece, fc.constantFrom('k'.repeat(1_001), 'n'.repeat(1_100).replace(/nn/g, 'n '))),
        tie('value'),
      ),
      { maxLength: 4 },
    )
    .map((all) => Object.fromEntries(all.filter(([key]) => key !== '__proto__'))),
}))

/** As JSON has it, with what can't be in UTF-8 replaced. */
const asJson = (one: unknown): unknown =>
  JSON.parse(JSON.stringify(one), (_, inner) => {
    if (typeof inner === 'string') return inner.toWellFormed()
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner
    return Object.fromEntries(Object.entries(inner).map(([key, item]) => [key.toWellFormed(), item]))
  })

it('is read as what was written, by parsers of either version', { timeout: 240_000 }, () => {
  fc.assert(
    fc.property(value, (one) => {
      const text = yamlText(one)
      for (const version of ['1.1', '1.2'] as const)
        expect(parse(text, { version, merge: false, uniqueKeys: false }), text).toEqual(asJson(one))
    }),
    { numRuns: 3_000 },
  )
})

it('looks as Kubernetes writes it', () => {
  const object = {
    ...{ kind: 'VirtualMachine', apiVersion: 'plasmavmc.io/v1alpha1', metadata: { name: 'web', labels: {} } },
    spec: {
      memory: '1Gi',
      cpu: { cores: 2 },
      disks: [{ name: 'root', size: '8Gi' }, { name: 'b' }],
      on: 'yes',
      script: '#!/bin/sh\nexit\n',
      none: undefined,
      list: [[1, []], null],
    },
  }
  expect(yamlText(object)).toBe(`apiVersion: plasmavmc.io/v1alpha1
kind: VirtualMachine
metadata:
  labels: {}
  name: web
spec:
  cpu:
    cores: 2
  disks:
  - name: root
    size: 8Gi
  - name: b
  list:
  - - 1
    - []
  - null
  memory: 1Gi
  "on": "yes"
  script: |
    #!/bin/sh
    exit
`)
})

// What the library here is not strict about, and Go's and Python's parsers are.
it.each([
  ['a\u0085b', '"a\\u0085b"'],
  ['a\u2028b', '"a\\u2028b"'],
  ['\ufeffa', '"\\ufeffa"'],
  ['a\nb\ud800', '"a\\nb\ufffd"'],
  [1e21, '1.0e+21'],
  [-1.5e-7, '-1.5e-7'],
  ['1_000', '"1_000"'],
  ['12:30', '"12:30"'],
])('%j is written as %s', (value, text) => {
  expect(yamlText({ v: value })).toBe(`v: ${text}\n`)
})

it('comes in pieces where it is long', async () => {
  const items = Array.from({ length: 3_000 }, (_, i) => ({
    metadata: { name: `vm-${i}`, note: 'x'.repeat(100) },
  }))
  const body = yamlBody({ kind: 'List', items })
  expect(body).toBeInstanceOf(Readable)
  expect(parse(await wholeOf(body as Readable))).toEqual({ kind: 'List', items })
  expect(yamlBody({ items: [], none: { gone: undefined } })).toBe('items: []\nnone: {}\n')
})

import { describe, expect, test } from 'vitest'
import { bySeen } from '../../src/cli/events.ts'
import { expectation, jsonPath } from '../../src/cli/expectation.ts'
import { clientKinds, kindOf, kindOfManifest, nameOf, pathOf } from '../../src/cli/kinds.ts'
import { durationMs } from '../../src/cli/options.ts'
import { age, plain, renderTable, wrapText } from '../../src/cli/output.ts'
import { commandName, commands } from '../../src/cli/program.ts'
import { progressLine } from '../../src/cli/progress.ts'
import { similarTo } from '../../src/cli/similar.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { kinds } from '../../src/resources/kinds.ts'

const out = { write: () => true }

test('the kinds of the client are those of the server', () => {
  const seen = kinds.map((k) => ({
    group: k.group,
    version: k.version,
    kind: k.kind,
    plural: k.plural,
    shortNames: [...k.shortNames],
    namespaced: k.namespaced,
  }))
  expect(clientKinds).toEqual(seen)
})

test('types are found by any of their names, and paths are escaped', () => {
  for (const word of ['vm', 'VMS', 'virtualmachine', 'virtualmachines.plasmavmc.io']) {
    expect(kindOf(word).kind).toBe('VirtualMachine')
  }
  expect(pathOf(kindOf('vm'), 'a/b', '../x')).toBe(
    '/apis/plasmavmc.io/v1alpha1/namespaces/a%2Fb/virtualmachines/..%2Fx',
  )
  expect(pathOf(kindOf('ev'))).toBe('/api/v1/events')
  expect(nameOf(kindOf('ns'), 'x')).toBe('namespace/x')
  expect(() => kindOf('pods')).toThrow(/doesn't have a resource type "pods"/)
  expect(() => kindOfManifest('plasmavmc.io/v1', 'VirtualMachine')).toThrow(/no matches for kind/)
})

test('tables are aligned, end without spaces and take nothing from a terminal', () => {
  const table = {
    columns: ['Name', 'Status'],
    rows: [
      ['web', 'Running'],
      ['long-name', undefined],
    ],
  }
  expect(renderTable(table, { out }).text).toBe(
    'NAME        STATUS\nweb         Running\nlong-name   <none>\n',
  )
  expect(plain('a\u001b[2Jb\nc')).toBe('a [2Jb c')
})

test('a terminal’s width holds; its last column gives way', () => {
  const table = { columns: ['Name', 'Message'], rows: [['web', 'x'.repeat(100)]] }
  const { text } = renderTable(table, { out: { ...out, isTTY: true, columns: 30 }, env: { NO_COLOR: '1' } })
  for (const line of text.trimEnd().split('\n')) expect(line.length).toBeLessThanOrEqual(30)
  expect(text).toContain('…')
})

describe('in 80 columns', () => {
  const long = `${'machine-'.repeat(8)}`.slice(0, 62)
  const lines = (columns: string[], rows: unknown[][], wrap = false) => {
    const table = { columns, rows }
    const style = { out: { ...out, isTTY: true, columns: 80 }, env: { NO_COLOR: '1' }, wrap }
    const { text } = renderTable(table, style)
    const all = text.trimEnd().split('\n')
    for (const line of all) expect(line.length).toBeLessThanOrEqual(80)
    return all
  }
  const words = 'the QEMU ended with exit code 1, and said: no such model of a processor'

  test('events tell their objects apart, one long name or many', () => {
    const event = (name: string) => ['3m20s', 'Warning', 'CrashLoopBackOff', `virtualmachine/${name}`, words]
    const heads = ['Last Seen', 'Type', 'Reason', 'Object', 'Message']
    const [, web, other] = lines(heads, [event('web'), event(`${long}1`)])
    expect(web).toMatch(/^3m20s +Warning +CrashLoopBackOff +virtualmachine\/web +the QEMU ended/)
    expect(other).toMatch(/^3m20s +Warning +CrashLoopBackOff +virtual\S*…\S+1 +the QEMU ended/)
    const wrapped = lines(heads, [event('web'), event(`${long}1`)], true).join(' ')
    for (const word of words.split(' ')) expect(wrapped).toContain(word)
    const objects = lines(heads, [event(`${long}1`), event(`${long}2`)]).slice(1)
    expect(objects[0]).not.toBe(objects[1])
  })

  test('names that differ in their begin alone are cut at another place', () => {
    const [, a, b] = lines(
      ['Name', 'Message'],
      [
        [`abcdefgh-x-${long}`, words],
        [`abcdefgh-y-${long}`, words],
      ],
    )
    expect(a).not.toBe(b)
    // Neither the first half nor the last one tells these apart.
    const tail = 'tail-'.repeat(8)
    const ends = [1, 2].map((n) => [`${long}-${n}-${tail}`, words])
    expect(new Set(lines(['Name', 'Message'], ends)).size).toBe(3)
  })

  test('numbers, states and keys are whole', () => {
    const wide = ['Name', 'Status', 'Host', 'CPUs', 'Memory', 'Restarts', 'Age', 'Strategy', 'PID', 'Reason']
    const [, row] = lines(
      wide,
      [...[['db', 'CrashLoopBackOff', `host-${long}`, 16, '32768Mi', 1000, '3h20m', 'RerunOnFailure']]].map(
        (cells) => [...cells, 1_234_567, 'CrashLoopBackOff'],
      ),
    )
    expect(row).toMatch(/^db +CrashLoopBackOff +h\S*…\S* +16 +32768Mi +1000 +3h20m +R\S+ +1234567 +C/)
    const key = [
      'PVMC2A3B4C5D6E7F2345',
      'alice',
      'ops,dev,metrics-readers',
      'Disabled',
      '2026-12-29T13:45:45Z',
    ]
    const [, listed] = lines(
      ['Id', 'User', 'Groups', 'State', 'Expires', 'Last Used', 'Age'],
      [[...key, '2d1h', '3m20s']],
    )
    expect(listed).toMatch(/^PVMC2A3B4C5D6E7F2345 +alice +o\S+ +Disabled +2026-12-29T13:45:45Z +2d1h +3m20s$/)
  })

  test('rows that follow stay below their columns', () => {
    const style = { out: { ...out, isTTY: true, columns: 80 }, env: { NO_COLOR: '1' } }
    const columns = ['Name', 'Status', 'Message']
    const first = renderTable({ columns, rows: [[long, 'Running', words]] }, style)
    const next = renderTable(
      { columns, rows: [['b', 'Stopped', 'x']] },
      { ...style, headers: false, widths: first.widths },
    )
    expect(next.text.indexOf('Stopped')).toBe(first.text.split('\n')[1]?.indexOf('Running'))
  })
})

test('a last column that wraps loses nothing', () => {
  const words = 'one two three four five six seven eight nine ten'
  const table = { columns: ['Type', 'Message'], rows: [['Ready', words]] }
  const { text } = renderTable(table, {
    out: { ...out, isTTY: true, columns: 40 },
    env: { NO_COLOR: '1' },
    wrap: true,
    indent: 2,
  })
  const lines = text.trimEnd().split('\n')
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(40)
  expect(lines[1]).toBe('  Ready   one two three four five six')
  expect(
    lines
      .slice(1)
      .map((l) => l.slice(10))
      .join(' '),
  ).toBe(words)
  expect(wrapText('x'.repeat(7), 3)).toEqual(['xxx', 'xxx', 'x'])
})

test('what is mistyped is guessed, what is far off is not', () => {
  expect(similarTo('vsm', ['vm', 'hosts'])).toBe('vm')
  expect(similarTo('memroy', ['memory', 'machine'])).toBe('memory')
  expect(similarTo('pods', ['vms', 'hosts', 'sp'])).toBeUndefined()
  expect(() => kindOf('vrtualmachines')).toThrow(
    expect.objectContaining({ hint: 'did you mean virtualmachines?' }),
  )
})

test('progress stays silent at first, then says where it stands; on a terminal in one line that goes away', () => {
  const due: (() => void)[] = []
  const clock = {
    ...systemClock,
    after: (_ms: number, fn: () => void) => {
      due.push(fn)
      return () => void due.splice(0)
    },
  }
  const wrote = (isTTY: boolean) => {
    let text = ''
    const progress = progressLine({ clock, stderr: { write: (more) => (text += more), isTTY, columns: 12 } })
    progress.show('one')
    progress.show('two')
    expect(text).toBe('')
    for (const fn of due.splice(0)) fn()
    progress.show('three is long')
    progress.end()
    return text
  }
  expect(wrote(false)).toBe('two\nthree is long\n')
  expect(wrote(true)).toBe('\r\u001b[Ktwo\r\u001b[Kthree is lo\r\u001b[K')
})

test('colour only on a terminal and without NO_COLOR', () => {
  const table = { columns: ['Status'], rows: [['Running']] }
  const tty = { ...out, isTTY: true, columns: 80 }
  expect(renderTable(table, { out: tty }).text).toContain('\u001b[32m')
  expect(renderTable(table, { out: tty, env: { NO_COLOR: '1' } }).text).not.toContain('\u001b')
  expect(renderTable(table, { out }).text).not.toContain('\u001b')
})

test('ages as kubectl writes them', () => {
  const seconds = [5, 119, 120, 200, 700, 3 * 3600, 7 * 3600 + 300, 9 * 3600, 49 * 3600, 9 * 86_400]
  expect(seconds.map((s) => age(s * 1000))).toEqual([
    '5s',
    '119s',
    '2m',
    '3m20s',
    '11m',
    '3h',
    '7h5m',
    '9h',
    '2d1h',
    '9d',
  ])
})

test('durations', () => {
  expect(['30s', '1m30s', '500ms', '2h', '7'].map(durationMs)).toEqual([30_000, 90_000, 500, 7_200_000, 7000])
  for (const bad of ['', 'x', '1y', '5s!']) expect(() => durationMs(bad)).toThrow(/no duration/)
})

test('--for', () => {
  const vm = {
    metadata: { name: 'a', labels: { 'x.y/z': 'v' } },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }], disks: [{ name: 'd' }] },
  }
  expect(expectation('condition=ready').done(vm)).toBe(true)
  expect(expectation('condition=Ready=False').done(vm)).toBe(false)
  expect(expectation('jsonpath={.status.phase}=Running').done(vm)).toBe(true)
  expect(expectation("jsonpath='{.status.phase}'=Stopped").done(vm)).toBe(false)
  expect(expectation('delete').done(undefined)).toBe(true)
  expect(jsonPath("{.metadata.labels['x.y/z']}")(vm)).toBe('v')
  expect(jsonPath('.status.disks[0].name')(vm)).toBe('d')
  expect(() => expectation('jsonpath={..x}')).toThrow(/no path/)
  expect(() => expectation('ready')).toThrow(/not understood/)
})

test('events of one second are in the order in which they were written', () => {
  const event = (resourceVersion: string, lastTimestamp: string, eventTime?: string) => ({
    ...{ metadata: { name: resourceVersion, resourceVersion }, lastTimestamp },
    ...(eventTime && { eventTime }),
  })
  const second = '2026-01-01T00:00:07Z'
  const order = (...events: ReturnType<typeof event>[]) => events.toSorted(bySeen).map((e) => e.metadata.name)
  expect(order(event('10', second), event('9', second), event('20', '2026-01-01T00:00:06Z'))).toEqual([
    ...['20', '9', '10'],
  ])
  const [early, late] = [second.replace('Z', '.100000Z'), second.replace('Z', '.900000Z')]
  expect(order(event('1', second, late), event('2', second, early))).toEqual(['2', '1'])
})

test('the command is found behind global options', () => {
  expect(commandName(['-n', 'get', 'describe'])).toBe('describe')
  expect(commandName(['--data-dir=/x', 'get'])).toBe('get')
  expect(commandName(['--version'])).toBeUndefined()
})

test('each command’s file loads and declares itself', async () => {
  const { Command } = await import('commander')
  for (const [name, , load] of commands) {
    if (['up', 'serve'].includes(name)) continue // Told apart in their own tests: they bring the whole server.
    const { command } = await load()
    command.define(new Command(name))
    expect(command.run).toBeTypeOf('function')
  }
})

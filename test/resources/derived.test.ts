import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { toCrd } from '../../src/resources/crd.ts'
import { defineResource } from '../../src/resources/define.ts'
import { explain } from '../../src/resources/explain.ts'
import { Event, kinds } from '../../src/resources/kinds.ts'
import { openApiV2, openApiV3, openApiV3Index } from '../../src/resources/openapi.ts'
import { parse } from '../../src/resources/parse.ts'
import { humanDuration, toTable } from '../../src/resources/table.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

const second = 1000
const hour = 3600 * second
const day = 24 * hour
const now = Date.parse('2026-01-02T00:00:00Z')

describe('humanDuration', () => {
  it.each([
    [-3 * second, '<invalid>'],
    [-1 * second, '0s'],
    [5 * second, '5s'],
    [119 * second, '119s'],
    [192 * second, '3m12s'],
    [180 * second, '3m'],
    [600 * second, '10m'],
    [3 * hour + 60 * second, '3h1m'],
    [9 * hour, '9h'],
    [47 * hour, '47h'],
    [49 * hour, '2d1h'],
    [4 * day, '4d'],
    [20 * day + hour, '20d'],
    [2 * 365 * day + day, '2y1d'],
    [9 * 365 * day, '9y'],
  ])('%i ms is %s', (ms, text) => {
    expect(humanDuration(ms)).toBe(text)
  })
})

function machine() {
  const metadata = { name: 'a', namespace: 'default', creationTimestamp: '2026-01-01T23:56:48Z' }
  const spec = { cpu: { cores: 2, sockets: 2, threads: 2 } }
  const parsed = parse(VirtualMachine, {
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: 'VirtualMachine',
    metadata,
    spec,
  })
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.causes))
  return parsed.object
}

describe('toTable', () => {
  it('fills cells, with nothing where there is nothing', () => {
    const table = toTable(VirtualMachine, [machine()], {
      now,
      wide: false,
      metadata: { resourceVersion: '7' },
    })
    expect(table.columnDefinitions[0]).toMatchObject({ name: 'Name', format: 'name' })
    expect(table.rows[0]?.cells).toEqual(['a', '', '', 8, '512Mi', null, '3m12s'])
    expect(table.rows[0]?.object).toMatchObject({ kind: 'PartialObjectMetadata', metadata: { name: 'a' } })
    expect(table.metadata.resourceVersion).toBe('7')
  })

  it('has as many cells as columns for every kind', () => {
    for (const kind of kinds) {
      const object = { apiVersion: 'x', kind: kind.kind, metadata: { name: 'a' }, spec: { cpu: {} } }
      const table = toTable(kind, [object], { now })
      expect(table.rows[0]?.cells.length, kind.kind).toBe(table.columnDefinitions.length)
    }
  })
})

it('a table of events is Kubernetes’ own', () => {
  const involvedObject = { kind: 'VirtualMachine', name: 'web' }
  const event = { apiVersion: 'v1', kind: 'Event', metadata: { name: 'web.1' }, involvedObject } as never
  const { columnDefinitions, rows } = toTable(Event, [event], { now })
  const heads = columnDefinitions.map(({ name, priority, format }) => [name, priority, format].join())
  expect(heads.filter((head) => head.includes(',0,'))).toEqual(
    ['Last Seen', 'Type', 'Reason', 'Object', 'Message'].map((name) => `${name},0,`),
  )
  expect(heads.at(-1)).toBe('Name,1,name')
  expect(rows[0]?.cells[3]).toBe('virtualmachine/web')
})

describe('toCrd', () => {
  const text = JSON.stringify(toCrd(VirtualMachine))

  it('says every rule, also in CEL', () => {
    for (const rule of VirtualMachine.rules) expect(text).toContain(JSON.stringify(rule.message))
  })

  it('makes quantities int-or-string, integers int64, and leaves JSON Schema behind', () => {
    expect(toCrd(VirtualMachine)).toMatchObject({
      metadata: { name: 'virtualmachines.plasmavmc.io' },
      spec: {
        scope: 'Namespaced',
        versions: [
          {
            subresources: { status: {} },
            schema: {
              openAPIV3Schema: {
                properties: {
                  spec: {
                    properties: {
                      memory: { 'x-kubernetes-int-or-string': true, default: '512Mi' },
                      cpu: { properties: { cores: { type: 'integer', format: 'int64', default: 1 } } },
                    },
                  },
                },
              },
            },
          },
        ],
      },
    })
    expect(text).not.toMatch(/"(\$schema|intOrString|propertyNames|anyOf)"/)
  })

  it('says of texts what an API server holds them to, and names the field that breaks a rule', () => {
    const pattern = /"hostAddress":\{"type":"string","default":"127.0.0.1","pattern":/
    expect(text).toMatch(pattern)
    // With a format a list would pass for a text.
    expect(text).not.toMatch(/"format":"(?!int64)/)
    expect(text.match(/"minProperties":1/g)).toHaveLength(3)
    expect(text).toContain('"message":"memory must be at least 1Mi","fieldPath":".memory"')
  })

  it.each([
    ['a union', z.union([z.string(), z.int()])],
    ['anything', z.unknown()],
    ['a tuple', z.tuple([z.string()])],
  ])('refuses %s', (_, schema) => {
    const kind = defineResource({
      kind: 'Odd',
      plural: 'odds',
      description: '',
      body: z.object({ spec: z.object({ odd: schema }) }),
    })
    expect(() => toCrd(kind)).toThrow(/Odd\.spec\.odd/)
  })
})

describe('OpenAPI', () => {
  it('lists every group version and has a document for each', () => {
    const index = openApiV3Index(kinds, () => 'hash') as { paths: Record<string, unknown> }
    for (const path of Object.keys(index.paths)) {
      expect(openApiV3(kinds, path.replace(/^apis?\//, ''))).toMatchObject({ openapi: '3.0.0' })
    }
    expect(openApiV3(kinds, 'nothing/v1')).toBeUndefined()
  })

  it.each([
    ['3', JSON.stringify(openApiV3(kinds, 'plasmavmc.io/v1alpha1'))],
    ['2', JSON.stringify(openApiV2(kinds))],
  ])('%s has no dangling references and lets kubectl ask for field validation', (version, text) => {
    const document = JSON.parse(text)
    const schemas = version === '3' ? document.components.schemas : document.definitions
    for (const [, name = ''] of text.matchAll(/"\$ref":"#\/[a-z/]+\/([^"]+)"/g))
      expect(schemas).toHaveProperty([name])
    const { patch } =
      document.paths['/apis/plasmavmc.io/v1alpha1/namespaces/{namespace}/virtualmachines/{name}']
    expect(patch.parameters.map((one: { name: string }) => one.name)).toContain('fieldValidation')
    expect(patch['x-kubernetes-group-version-kind']).toMatchObject({ kind: 'VirtualMachine' })
  })
})

describe('explain', () => {
  it("has kubectl's form", () => {
    expect(explain('vm.spec.disks.bus')).toBe(
      [
        'GROUP:      plasmavmc.io\nKIND:       VirtualMachine\nVERSION:    v1alpha1\n\n',
        'FIELD: bus <string>\nENUM:\n    virtio\n    scsi\n    sata\n    usb\n\n',
        'DEFAULT: "virtio"\n\nDESCRIPTION:\n    How the guest sees it.\n    \n\n',
      ].join(''),
    )
    expect(explain('vm.spec.networks', { recursive: true })).toContain(
      '  bridge\t<Object>\n    name\t<string> -required-\n',
    )
  })

  it('shows what a field is where nothing is said, and takes the group of a kind', () => {
    expect(explain('vm.spec.disks')).toMatch(
      /bus\t<string>\n {2}enum: virtio, scsi, sata, usb\n {2}default: "virtio"\n/,
    )
    expect(explain('vms.plasmavmc.io.spec.disks.bus')).toBe(explain('vm.spec.disks.bus'))
    expect(explain('vms.plasmavmc.io')).toBe(explain('vm'))
  })

  it('names the step that does not exist', () => {
    expect(() => explain('vm.spec.dsks')).toThrow('field "spec.dsks" does not exist')
    expect(() => explain('car')).toThrow('there is no resource "car"')
  })
})

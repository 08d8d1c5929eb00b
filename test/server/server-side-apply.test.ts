import { beforeEach, describe, expect, test } from 'vitest'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { type Lab, lab, machine, machines, merge } from './fixture.ts'

const applyType = 'application/apply-patch+yaml'
let one: Lab
beforeEach(async () => {
  one = await lab()
})

const apply = (
  name: string,
  spec: object,
  { manager = 'one', query = '', metadata = {} as object, url = `${machines}/${name}` } = {},
) =>
  one.call('PATCH', `${url}?fieldManager=${manager}${query}`, machine(name, spec, metadata), {
    'content-type': applyType,
  })

const fieldsOf = (json: { metadata: { managedFields?: readonly Record<string, unknown>[] } }) =>
  (json.metadata.managedFields ?? []).map(({ manager, operation, fieldsV1, subresource }) => ({
    ...{ manager, operation, fieldsV1 },
    ...(subresource !== undefined && { subresource }),
  }))

describe('an apply', () => {
  test('makes what is not there, 201, and says who owns it', async () => {
    const made = await apply('web', { memory: '1Gi', disks: [{ name: 'root', size: '1Gi' }] })
    expect(made.code).toBe(201)
    expect(made.json.spec.memory).toBe('1Gi')
    expect(made.json.metadata.generation).toBe(1)
    expect(fieldsOf(made.json)).toEqual([
      {
        ...{ manager: 'one', operation: 'Apply' },
        fieldsV1: {
          'f:spec': {
            'f:disks': { 'k:{"name":"root"}': { '.': {}, 'f:name': {}, 'f:size': {} } },
            'f:memory': {},
          },
        },
      },
    ])
    const [entry] = made.json.metadata.managedFields
    expect(entry).toMatchObject({ apiVersion: 'plasmavmc.io/v1alpha1', fieldsType: 'FieldsV1' })
    expect(entry.time).toMatch(/^\d{4}-.*Z$/)
    // Defaults are nobody's, and are not written.
    expect((await one.objects.getStored(VirtualMachine, { name: 'web', namespace: 'default' })).spec).toEqual(
      {
        ...{ memory: '1Gi', disks: [{ name: 'root', size: '1Gi' }] },
      },
    )
  })

  test('again writes nothing', async () => {
    const first = await apply('web', { memory: '1Gi' })
    const again = await apply('web', { memory: '1Gi' })
    expect(again.code).toBe(200)
    expect(again.json).toEqual(first.json)
  })

  test('takes YAML', async () => {
    const text = 'apiVersion: plasmavmc.io/v1alpha1\nkind: VirtualMachine\nspec:\n  memory: 1Gi\n'
    const headers = { 'content-type': applyType }
    const made = await one.call('PATCH', `${machines}/web?fieldManager=one`, text, headers)
    expect(made.code).toBe(201)
    expect(made.json.spec.memory).toBe('1Gi')
  })

  test('conflicts with Kubernetes’ words and causes; force takes over', async () => {
    await apply('web', { memory: '1Gi' })
    const refused = await apply('web', { memory: '2Gi' }, { manager: 'two' })
    expect(refused.code).toBe(409)
    expect(refused.json).toMatchObject({
      ...{ kind: 'Status', reason: 'Conflict' },
      message: 'Apply failed with 1 conflict: conflict with "one": .spec.memory',
      details: {
        causes: [
          {
            reason: 'FieldManagerConflict',
            message: 'conflict with "one"',
            field: '.spec.memory',
          },
        ],
      },
    })
    const after = await one.call('GET', `${machines}/web`)
    expect(after.json.spec.memory).toBe('1Gi')
    const forced = await apply('web', { memory: '2Gi' }, { manager: 'two', query: '&force=true' })
    expect(forced.json.spec.memory).toBe('2Gi')
    expect(fieldsOf(forced.json).map(({ manager }) => manager)).toEqual(['two'])
  })

  test('conflicts with what another set to a default, and not with the same value', async () => {
    await apply('web', { cpu: { cores: 1 } })
    expect((await apply('web', { cpu: { cores: 1 } }, { manager: 'two' })).code).toBe(200)
    const refused = await apply('web', { cpu: { cores: 2 } }, { manager: 'three' })
    expect(refused.json.message).toContain('Apply failed with 2 conflicts')
  })

  test('takes back what it no longer says', async () => {
    await apply('web', {
      memory: '1Gi',
      disks: [
        { name: 'a', size: '1Gi' },
        { name: 'b', size: '1Gi' },
      ],
    })
    await apply('web', { disks: [{ name: 'c', size: '1Gi' }] }, { manager: 'two' })
    const { json } = await apply('web', { disks: [{ name: 'b', size: '1Gi' }] })
    expect(json.spec.memory).toBe('512Mi')
    expect(json.spec.disks.map(({ name }: { name: string }) => name)).toEqual(['b', 'c'])
    expect(json.metadata.generation).toBe(3)
  })

  test('of a status owns only status, and one of the rest no status', async () => {
    await one.running('web')
    const status = { phase: 'Paused', conditions: [] }
    const headers = { 'content-type': applyType }
    const body = { ...machine('web', { memory: '4Gi' }), status }
    const done = await one.call('PATCH', `${machines}/web/status?fieldManager=s&force=true`, body, headers)
    expect(done.code).toBe(200)
    expect(done.json.status.phase).toBe('Paused')
    expect(done.json.spec.memory).toBe('512Mi')
    const own = fieldsOf(done.json).find(({ manager }) => manager === 's')
    expect(own).toMatchObject({ subresource: 'status' })
    expect(Object.keys(own?.fieldsV1 as object)).toEqual(['f:status'])
    const main = await one.call('PATCH', `${machines}/web?fieldManager=m&force=true`, body, headers)
    expect(main.json.status.phase).toBe('Paused')
    const mine = fieldsOf(main.json).find(({ manager }) => manager === 'm')
    expect(Object.keys(mine?.fieldsV1 as object)).toEqual(['f:spec'])
  })

  test.each([
    ['without a manager', '', {}, 422, 'fieldManager: Required value: is required for apply patch'],
    ['with managedFields', '?fieldManager=a', { managedFields: [{}] }, 400, 'managedFields must be nil'],
    ['with a uid of what is not there', '?fieldManager=a', { uid: 'x' }, 409, 'no existing object was found'],
  ])('%s is refused', async (_name, query, metadata, code, message) => {
    const headers = { 'content-type': applyType }
    const refused = await one.call('PATCH', `${machines}/web${query}`, machine('web', {}, metadata), headers)
    expect(refused.code).toBe(code)
    expect(refused.json.message).toContain(message)
    expect((await one.call('GET', `${machines}/web`)).code).toBe(404)
  })

  test('of what is wrong is refused, names the field, and changes nothing', async () => {
    const first = await apply('web', { memory: '1Gi' })
    for (const [spec, code, message] of [
      [{ memory: '-1' }, 422, 'spec.memory'],
      [{ disks: [{ size: '1Gi' }] }, 400, '.spec.disks: associative list item has no value'],
      [{ disks: [{ name: 'a' }, { name: 'a' }] }, 400, 'duplicate entries for key'],
    ] as const) {
      const refused = await apply('web', spec, { query: '&force=true' })
      expect([refused.code, refused.json.message]).toEqual([code, expect.stringContaining(message)])
    }
    const strict = await apply('web', { memry: '1Gi' }, { query: '&fieldValidation=Strict' })
    expect(strict.code).toBe(400)
    expect(strict.json.message).toContain('unknown field "spec.memry"')
    expect((await one.call('GET', `${machines}/web`)).json).toEqual(first.json)
  })

  test('for a trial changes nothing', async () => {
    expect((await apply('web', {}, { query: '&dryRun=All' })).code).toBe(201)
    expect((await one.call('GET', `${machines}/web`)).code).toBe(404)
    const first = await apply('web', { memory: '1Gi' })
    const trial = await apply('web', { memory: '2Gi' }, { query: '&dryRun=All' })
    expect(trial.json.spec.memory).toBe('2Gi')
    expect((await one.call('GET', `${machines}/web`)).json).toEqual(first.json)
  })

  test('with an old resourceVersion is refused', async () => {
    const { json } = await apply('web', { memory: '1Gi' })
    await apply('web', { memory: '2Gi' })
    const { resourceVersion } = json.metadata
    const refused = await apply('web', { memory: '3Gi' }, { metadata: { resourceVersion } })
    expect(refused.code).toBe(409)
  })

  test('by many managers at once loses none', async () => {
    await apply('web', {})
    const names = Array.from({ length: 8 }, (_, index) => `m${index}`)
    const codes = await Promise.all(
      names.map(async (name) => {
        for (;;) {
          const { code } = await apply('web', {}, { manager: name, metadata: { labels: { [name]: 'x' } } })
          if (code !== 409) return code
        }
      }),
    )
    expect(new Set(codes)).toEqual(new Set([200]))
    const { json } = await one.call('GET', `${machines}/web`)
    expect(Object.keys(json.metadata.labels).sort()).toEqual(names)
    expect(json.metadata.managedFields).toHaveLength(8 + 1)
  })
})

describe('other writes', () => {
  const agent = { 'user-agent': 'kubectl/v1.32.4 (linux/amd64)' }

  test('are accounted for by fieldManager, or by the program', async () => {
    await one.call('POST', `${machines}?fieldManager=maker`, machine('web', { memory: '1Gi' }))
    const headers = { 'content-type': merge, ...agent }
    await one.call('PATCH', `${machines}/web`, { spec: { machine: 'pc' } }, headers)
    const { json } = await one.call('GET', `${machines}/web`)
    expect(fieldsOf(json)).toEqual([
      expect.objectContaining({ manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:machine': {} } } }),
      expect.objectContaining({ manager: 'maker', fieldsV1: { 'f:spec': { 'f:memory': {} } } }),
    ])
  })

  test('take over what they change', async () => {
    await apply('web', { memory: '1Gi' })
    const headers = { 'content-type': merge, ...agent }
    const { json } = await one.call('PATCH', `${machines}/web`, { spec: { memory: '2Gi' } }, headers)
    expect(fieldsOf(json).map(({ manager }) => manager)).toEqual(['kubectl'])
    const refused = await apply('web', { memory: '1Gi' })
    expect(refused.json.message).toMatch(
      /conflict with "kubectl" using plasmavmc.io\/v1alpha1 at \d{4}-.*Z: \.spec\.memory/,
    )
  })

  test('start and stop are accounted for, too', async () => {
    await one.running('web')
    await one.call('POST', `${machines}?fieldManager=maker`, machine('db', { runStrategy: 'Always' }))
    await one.call('POST', `${machines}/db/stop`, undefined, agent)
    const { json } = await one.call('GET', `${machines}/db`)
    expect(fieldsOf(json)).toContainEqual(
      expect.objectContaining({ manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:runStrategy': {} } } }),
    )
  })

  test('may rewrite the account: an empty entry takes it away, an empty list does not, nonsense is refused', async () => {
    await apply('web', { memory: '1Gi' })
    const patch = (managedFields: unknown) =>
      one.call('PATCH', `${machines}/web`, { metadata: { managedFields } }, { 'content-type': merge })
    expect(fieldsOf((await patch([])).json)).toHaveLength(1)
    const refused = await patch([{ manager: 'x', operation: 'Steal' }])
    expect(refused.code).toBe(422)
    expect(refused.json.details.causes[0].field).toBe('metadata.managedFields')
    const renamed = [
      {
        ...{ manager: 'two', operation: 'Apply', apiVersion: 'plasmavmc.io/v1alpha1' },
        ...{ fieldsType: 'FieldsV1', fieldsV1: { 'f:spec': { 'f:memory': {} } } },
      },
    ]
    expect(fieldsOf((await patch(renamed)).json)).toEqual([expect.objectContaining({ manager: 'two' })])
    expect(fieldsOf((await patch([{}])).json)).toEqual([])
    // From now on nobody keeps account, until somebody applies.
    const { json } = await apply('web', { memory: '1Gi' })
    expect(fieldsOf(json).map(({ manager }) => manager)).toEqual(['one', 'before-first-apply'])
  })

  test('of the system leave the account as it is', async () => {
    const { json } = await apply('web', { memory: '1Gi' })
    const vm = await one.objects.get(VirtualMachine, { name: 'web', namespace: 'default' })
    await one.objects.update(VirtualMachine, {
      ...vm,
      metadata: { ...vm.metadata, finalizers: ['plasmavmc.io/x'] },
    })
    const after = await one.call('GET', `${machines}/web`)
    expect(after.json.metadata.managedFields).toEqual(json.metadata.managedFields)
    // An apply takes no finalizer away that it did not set.
    const again = await apply('web', { memory: '2Gi' })
    expect(again.json.metadata.finalizers).toEqual(['plasmavmc.io/x'])
  })

  test('force is for applies', async () => {
    await apply('web', {})
    const refused = await one.call('PATCH', `${machines}/web?force=true`, {}, { 'content-type': merge })
    expect([refused.code, refused.json.message]).toEqual([422, expect.stringContaining('force: Forbidden')])
  })
})

describe('who goes over from client-side apply', () => {
  const annotation = 'kubectl.kubernetes.io/last-applied-configuration'

  test('has no conflict with what that has left', async () => {
    const config = machine('web', { memory: '1Gi' })
    const annotations = { [annotation]: JSON.stringify(config) }
    const client = '?fieldManager=kubectl-client-side-apply'
    await one.call('POST', `${machines}${client}`, machine('web', { memory: '1Gi' }, { annotations }))
    const applied = await apply('web', { memory: '2Gi' }, { manager: 'kubectl' })
    expect(applied.code).toBe(200)
    // The note follows, for whoever goes back.
    expect(JSON.parse(applied.json.metadata.annotations[annotation]).spec).toEqual({ memory: '2Gi' })
  })

  test('conflicts where somebody else has changed it since', async () => {
    const annotations = { [annotation]: JSON.stringify(machine('web', { memory: '1Gi' })) }
    await one.call('POST', `${machines}?fieldManager=a`, machine('web', { memory: '1Gi' }, { annotations }))
    const change = { spec: { memory: '3Gi' } }
    await one.call('PATCH', `${machines}/web?fieldManager=b`, change, { 'content-type': merge })
    expect((await apply('web', { memory: '2Gi' }, { manager: 'kubectl' })).code).toBe(409)
  })
})

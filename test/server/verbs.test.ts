import { beforeEach, describe, expect, it } from 'vitest'
import { type Lab, lab, machine, machines, merge } from './fixture.ts'

let server: Lab
beforeEach(async () => {
  server = await lab()
})

const at = `${machines}/web`

describe('create and read', () => {
  it('answers 201 with uid, defaults and an audit id', async () => {
    const made = await server.call('POST', machines, machine('web', { memory: '1Gi' }))
    expect(made.code).toBe(201)
    expect(made.json.metadata).toMatchObject({ name: 'web', namespace: 'default', generation: 1 })
    expect(made.json.spec).toMatchObject({ memory: '1Gi', runStrategy: 'Always' })
    expect(made.headers['audit-id']).toMatch(/^[0-9a-f-]{36}$/)
    expect((await server.call('GET', at)).json).toEqual(made.json)
  })

  it('takes YAML', async () => {
    const text = 'metadata: {name: web}\nspec:\n  cpu: {cores: 2}\n'
    const made = await server.call('POST', machines, text, { 'content-type': 'application/yaml' })
    expect([made.code, made.json.spec.cpu.cores]).toEqual([201, 2])
  })

  it('lists one namespace and all, by label and field, in pages', async () => {
    await server.call('POST', '/api/v1/namespaces', { metadata: { name: 'other' } })
    for (const name of ['a', 'b', 'c'])
      await server.call('POST', machines, machine(name, {}, { labels: { tier: name } }))
    await server.call('POST', machines.replace('default', 'other'), machine('d'))
    const names = async (url: string) =>
      (await server.call('GET', url)).json.items.map(
        (item: { metadata: { name: string } }) => item.metadata.name,
      )
    expect(await names(machines)).toEqual(['a', 'b', 'c'])
    expect(await names('/apis/plasmavmc.io/v1alpha1/virtualmachines')).toEqual(['a', 'b', 'c', 'd'])
    expect(await names(`${machines}?labelSelector=${encodeURIComponent('tier in (a,c)')}`)).toEqual([
      'a',
      'c',
    ])
    expect(await names(`${machines}?fieldSelector=metadata.name%3Db`)).toEqual(['b'])
    const page = await server.call('GET', `${machines}?limit=2`)
    expect(page.json).toMatchObject({ kind: 'VirtualMachineList', apiVersion: 'plasmavmc.io/v1alpha1' })
    expect(page.json.items).toHaveLength(2)
    expect(await names(`${machines}?limit=2&continue=${page.json.metadata.continue}`)).toEqual(['c'])
  })

  it('lists whatever its length', async () => {
    for (const [count, size] of [
      [0, 0],
      [1, 10],
      [1, 200_000],
      [40, 10_000],
    ] as const) {
      const here = await lab()
      const names = Array.from({ length: count }, (_, i) => `m${String(i).padStart(3, '0')}`)
      const metadata = { annotations: { a: 'é"'.repeat(size / 2) } }
      for (const name of names) await here.call('POST', machines, machine(name, {}, metadata))
      const { code, json, headers } = await here.call('GET', machines)
      expect([code, headers['content-type']]).toEqual([200, expect.stringMatching(/^application.json/)])
      expect(json).toMatchObject({
        kind: 'VirtualMachineList',
        metadata: { resourceVersion: `${count + 1}` },
      })
      expect(json.items.map((item: { metadata: { name: string } }) => item.metadata.name)).toEqual(names)
    }
  })

  it('shows tables to whoever prefers them', async () => {
    await server.call('POST', machines, machine('web'))
    const accept = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'
    for (const url of [machines, at]) {
      const { json } = await server.call('GET', url, undefined, { accept })
      expect(json).toMatchObject({ kind: 'Table', apiVersion: 'meta.k8s.io/v1' })
      expect(json.columnDefinitions.map((column: { name: string }) => column.name)).toContain('Memory')
      expect(json.rows[0].cells[0]).toBe('web')
    }
    const plain = await server.call('GET', at, undefined, {
      accept: `${accept.replace('Table;', 'Table;q=0.1;')}`,
    })
    expect(plain.json.kind).toBe('VirtualMachine')
  })
})

describe('change', () => {
  beforeEach(() => server.call('POST', machines, machine('web', { memory: '1Gi' }, { labels: { a: 'b' } })))

  it('replaces, and refuses a stale version', async () => {
    const old = (await server.call('GET', at)).json
    const next = await server.call('PUT', at, { ...old, spec: { ...old.spec, memory: '2Gi' } })
    expect([next.code, next.json.metadata.generation]).toEqual([200, 2])
    const stale = await server.call('PUT', at, { ...old, spec: { ...old.spec, memory: '3Gi' } })
    expect([stale.code, stale.json.reason]).toEqual([409, 'Conflict'])
  })

  it('merges: null removes, nothing else is touched, defaults stay unsaid', async () => {
    const patch = { metadata: { labels: { a: null, c: 'd' } }, spec: { cpu: { cores: 4 } } }
    const { code, json } = await server.call('PATCH', at, patch, { 'content-type': merge })
    expect(code).toBe(200)
    expect(json.metadata.labels).toEqual({ c: 'd' })
    expect(json.spec).toMatchObject({ memory: '1Gi', cpu: { cores: 4, sockets: 1 } })
    const same = await server.call('PATCH', at, { spec: { machine: 'q35' } }, { 'content-type': merge })
    expect(same.json.metadata.resourceVersion).toBe(json.metadata.resourceVersion)
  })

  it('applies JSON patches whole or not at all', async () => {
    const type = { 'content-type': 'application/json-patch+json' }
    const { json } = await server.call('GET', at)
    const test = { op: 'test', path: '/metadata/resourceVersion', value: json.metadata.resourceVersion }
    const set = { op: 'replace', path: '/spec/memory', value: '2Gi' }
    const wrong = await server.call('PATCH', at, [set, { ...set, path: '/spec/no/such' }], type)
    expect([wrong.code, wrong.json.reason]).toEqual([422, 'Invalid'])
    expect((await server.call('GET', at)).json.spec.memory).toBe('1Gi')
    expect((await server.call('PATCH', at, [test, set], type)).json.spec.memory).toBe('2Gi')
    expect((await server.call('PATCH', at, [test, set], type)).code).toBe(422)
  })

  it('tries a patch again when somebody else wrote in between, unless it names a version', async () => {
    const { json } = await server.call('GET', at)
    const many = [1, 2, 3].map((n) => ({ metadata: { annotations: { [`n${n}`]: 'x' } } }))
    const all = await Promise.all(
      many.map((body) => server.call('PATCH', at, body, { 'content-type': merge })),
    )
    expect(all.map(({ code }) => code)).toEqual([200, 200, 200])
    expect((await server.call('GET', at)).json.metadata.annotations).toEqual({ n1: 'x', n2: 'x', n3: 'x' })
    const { resourceVersion } = json.metadata
    const stale = { metadata: { resourceVersion, labels: { x: 'y' } } }
    expect((await server.call('PATCH', at, stale, { 'content-type': merge })).code).toBe(409)
  })

  it('keeps status apart', async () => {
    const status = { phase: 'Running', hostName: 'host-1' }
    await server.call('PATCH', at, { status }, { 'content-type': merge })
    expect((await server.call('GET', at)).json.status).toBeUndefined()
    const patch = { status, spec: { memory: '8Gi' } }
    const { json } = await server.call('PATCH', `${at}/status`, patch, { 'content-type': merge })
    expect(json).toMatchObject({ status, spec: { memory: '1Gi' }, metadata: { generation: 1 } })
    const put = await server.call('PUT', `${at}/status`, {
      ...json,
      status: { ...json.status, phase: 'Paused' },
    })
    expect(put.json.status.phase).toBe('Paused')
    expect((await server.call('GET', `${at}/status`)).json.status.phase).toBe('Paused')
  })

  it('takes strategic patches of Kubernetes kinds', async () => {
    const type = { 'content-type': 'application/strategic-merge-patch+json' }
    const url = '/api/v1/namespaces/default'
    const done = await server.call('PATCH', url, { metadata: { labels: { a: 'b' } } }, type)
    expect([done.code, done.json.metadata.labels]).toEqual([
      200,
      { a: 'b', 'kubernetes.io/metadata.name': 'default' },
    ])
    const patch = { metadata: { labels: { $patch: 'replace', c: 'd' }, finalizers: ['example.com/a'] } }
    const other = await server.call('PATCH', url, patch, type)
    expect([other.code, other.json.metadata.labels]).toEqual([
      200,
      { c: 'd', 'kubernetes.io/metadata.name': 'default' },
    ])
    const more = await server.call('PATCH', url, { metadata: { finalizers: ['example.com/b'] } }, type)
    expect(more.json.metadata.finalizers.toSorted()).toEqual(['example.com/a', 'example.com/b'])
    const wrong = await server.call('PATCH', url, { metadata: { labels: { $patch: 'frob' } } }, type)
    expect([wrong.code, wrong.json.reason]).toEqual([400, 'BadRequest'])
  })

  it('writes nothing on a dry run', async () => {
    const { json } = await server.call('GET', at)
    await server.call('POST', `${machines}?dryRun=All`, machine('ghost'))
    await server.call('PATCH', `${at}?dryRun=All`, { spec: { memory: '9Gi' } }, { 'content-type': merge })
    await server.call('DELETE', `${at}?dryRun=All`)
    await server.call('DELETE', at, { dryRun: ['All'] })
    await server.call('DELETE', machines, { dryRun: ['All'] })
    await server.call('POST', `${at}/stop?dryRun=All`)
    expect((await server.call('GET', machines)).json.items).toEqual([json])
  })
})

describe('delete', () => {
  beforeEach(async () => {
    for (const name of ['web', 'db'])
      await server.call('POST', machines, machine(name, {}, { labels: { app: name } }))
  })

  it('answers with a Status, then 404', async () => {
    const { code, json } = await server.call('DELETE', at)
    expect([code, json.kind, json.status, json.details.name]).toEqual([200, 'Status', 'Success', 'web'])
    expect((await server.call('DELETE', at)).code).toBe(404)
  })

  it('holds to preconditions', async () => {
    const wrong = await server.call('DELETE', at, { preconditions: { uid: 'another' } })
    expect([wrong.code, wrong.json.reason]).toEqual([409, 'Conflict'])
    const { uid } = (await server.call('GET', at)).json.metadata
    expect((await server.call('DELETE', at, { preconditions: { uid } })).code).toBe(200)
  })

  it('waits for finalizers, which an update takes away', async () => {
    const finalizers = ['plasmavmc.io/machine']
    await server.call('PATCH', at, { metadata: { finalizers } }, { 'content-type': merge })
    const marked = await server.call('DELETE', at)
    expect(marked.json).toMatchObject({ kind: 'VirtualMachine', metadata: { finalizers } })
    expect(marked.json.metadata.deletionTimestamp).toBeDefined()
    await server.call('PATCH', at, { metadata: { finalizers: null } }, { 'content-type': merge })
    expect((await server.call('GET', at)).code).toBe(404)
  })

  it('marks a namespace, lets nothing new into it, and keeps those everybody is in', async () => {
    for (const name of ['shop', 'plasmavmc-system'])
      await server.call('POST', '/api/v1/namespaces', { metadata: { name } })
    const shop = machines.replace('default', 'shop')
    await server.call('POST', shop, machine('web'))
    for (const name of ['default', 'plasmavmc-system']) {
      const { code, json } = await server.call('DELETE', `/api/v1/namespaces/${name}`)
      expect([code, json.message]).toEqual([403, expect.stringContaining('may not be deleted')])
    }
    expect((await server.call('DELETE', '/api/v1/namespaces')).code).toBe(405)
    const marked = await server.call('DELETE', '/api/v1/namespaces/shop')
    expect(marked.json).toMatchObject({
      ...{ kind: 'Namespace', spec: { finalizers: ['kubernetes'] }, status: { phase: 'Terminating' } },
      metadata: { deletionTimestamp: expect.any(String) },
    })
    const late = await server.call('POST', shop, machine('late'))
    expect([late.code, late.json.details.causes[0].reason]).toEqual([403, 'NamespaceTerminating'])
    const why = 'unable to create new content in namespace shop because it is being terminated'
    expect(late.json.message).toBe(`virtualmachines.plasmavmc.io "late" is forbidden: ${why}`)
  })

  it('only finalizing changes what keeps a namespace', async () => {
    const url = '/api/v1/namespaces/shop'
    await server.call('POST', '/api/v1/namespaces', { metadata: { name: 'shop' } })
    const { json } = await server.call('PUT', url, {
      metadata: { labels: { a: 'b' } },
      spec: { finalizers: [] },
    })
    expect([json.metadata.labels, json.spec.finalizers]).toEqual([
      { a: 'b', 'kubernetes.io/metadata.name': 'shop' },
      ['kubernetes'],
    ])
    await server.call('DELETE', url)
    const done = await server.call('PUT', `${url}/finalize`, {
      metadata: { name: 'shop' },
      spec: { finalizers: [] },
    })
    expect(done.code).toBe(200)
    expect((await server.call('GET', url)).code).toBe(404)
  })

  it('deletes a collection by label', async () => {
    const { json } = await server.call('DELETE', `${machines}?labelSelector=app%3Ddb`)
    expect(json.items).toHaveLength(1)
    expect((await server.call('GET', machines)).json.items[0].metadata.name).toBe('web')
  })

  it('deletes a collection page by page, as it was when its first page was deleted', async () => {
    for (const name of ['a', 'b', 'c']) await server.call('POST', machines, machine(name))
    const first = (await server.call('DELETE', `${machines}?limit=2`)).json
    expect(first.items).toHaveLength(2)
    expect(first.metadata).toMatchObject({ continue: expect.any(String), remainingItemCount: 3 })
    await server.call('POST', machines, machine('new'))
    const { json } = await server.call('DELETE', `${machines}?limit=9&continue=${first.metadata.continue}`)
    expect(json.items).toHaveLength(3)
    expect(json.metadata.continue).toBeUndefined()
    const left = (await server.call('GET', machines)).json.items
    expect(left.map((one: { metadata: { name: string } }) => one.metadata.name)).toEqual(['new'])
    const lost = await server.call('DELETE', `${machines}?resourceVersion=999999`)
    expect([lost.code, lost.json.reason]).toEqual([504, 'Timeout'])
  })
})

describe('fields that stand twice', () => {
  const twice =
    '{"metadata":{"name":"web"},"spec":{"memory":"1Gi","cpu":{"cores":1,"cores":2},"memory":"2Gi"}}'
  const create = (mode: string) => server.call('POST', `${machines}?fieldValidation=${mode}`, twice)

  it('are refused, warned of or taken as the last says, as asked', async () => {
    const strict = await create('Strict')
    expect([strict.code, strict.json.message]).toEqual([
      400,
      expect.stringContaining('duplicate field "spec.cpu.cores", duplicate field "spec.memory"'),
    ])
    const warned = await create('Warn')
    expect([warned.code, warned.json.spec.memory]).toEqual([201, '2Gi'])
    expect(warned.headers['warning']).toContain('299 - "duplicate field \\"spec.memory\\""')
    const patch = '{"spec":{"memory":"3Gi","memory":"4Gi"}}'
    const patched = await server.call('PATCH', `${at}?fieldValidation=Strict`, patch, {
      'content-type': merge,
    })
    expect(patched.code).toBe(400)
    expect(
      (await server.call('PATCH', `${at}?fieldValidation=Ignore`, patch, { 'content-type': merge })).headers[
        'warning'
      ],
    ).toBeUndefined()
  })
})

describe('unknown fields', () => {
  const typo = machine('web', { dsks: [] })
  const create = (mode: string) => server.call('POST', `${machines}?fieldValidation=${mode}`, typo)

  it('are refused, warned of or dropped, as asked', async () => {
    const strict = await create('Strict')
    expect([strict.code, strict.json.reason]).toEqual([400, 'BadRequest'])
    expect(strict.json.message).toContain('strict decoding error: unknown field "spec.dsks"')
    const warned = await create('Warn')
    expect([warned.code, warned.headers['warning']]).toEqual([201, ['299 - "unknown field \\"spec.dsks\\""']])
    expect(warned.json.spec.dsks).toBeUndefined()
    await server.call('DELETE', at)
    expect((await create('Ignore')).headers['warning']).toBeUndefined()
    expect((await create('Maybe')).code).toBe(400)
  })
})

it('asks a kind that has none for no namespace, and takes an empty one for none', async () => {
  const { call } = server
  const pools = '/apis/plasmavmc.io/v1alpha1/storagepools'
  const pool = { metadata: { name: 'p', namespace: 'default' }, spec: { path: '/p' } }
  const made = await call('POST', pools, pool)
  expect([made.code, made.json.metadata.namespace]).toEqual([201, undefined])
  const vm = await call('POST', machines, machine('web', {}, { namespace: '' }))
  expect([vm.code, vm.json.metadata.namespace]).toEqual([201, 'default'])
})

import { afterAll, beforeAll, expect, it } from 'vitest'
import { Event } from '../../src/resources/kinds.ts'
import { machine, machines, merge } from './fixture.ts'
import { type KubectlLab, kubectlLab } from './kubectl-lab.ts'

const slow = { timeout: 120_000 }
let at: KubectlLab
beforeAll(async () => {
  at = await kubectlLab()
  for (const [name, memory] of [
    ['web', '1Gi'],
    ['db', '2Gi'],
    ['mail', '3Gi'],
  ] as const)
    await at.server.call('POST', machines, machine(name, { memory }, { labels: { app: name, tier: 'x' } }))
  await at.server.running('live')
}, 60_000)
afterAll(() => at.close())

it('finds out what there is', slow, async () => {
  const { kubectl } = at
  expect(await kubectl('api-versions')).toMatch(
    /^authorization\.k8s\.io\/v1\ncoordination\.k8s\.io\/v1\nplasmavmc\.io\/v1alpha1\nrbac\.authorization\.k8s\.io\/v1\nv1$/m,
  )
  const resources = await kubectl('api-resources', '--verbs=list', '-o', 'wide')
  expect(resources).toMatch(
    /virtualmachines +vm,vms +plasmavmc.io\/v1alpha1 +true +VirtualMachine .*all,plasmavmc/,
  )
  expect(await kubectl('api-resources', '--categories=all', '-o', 'name')).toBe(
    'virtualmachines.plasmavmc.io\n',
  )
  expect(await kubectl('version')).toMatch(/v1\.\d+\.0\+plasmavmc-/)
  expect(await kubectl('get', 'all')).toMatch(/^NAME .*\n.*db /)
  for (const name of ['vm', 'vms', 'virtualmachine', 'VirtualMachine', 'virtualmachines.plasmavmc.io'])
    expect(await kubectl('get', name, 'web', '-o', 'name')).toBe('virtualmachine.plasmavmc.io/web\n')
  expect(await kubectl('explain', 'vm', '--recursive')).toMatch(/spec\t<Object>[\s\S]*memory\t<Object>/)
  expect(await kubectl('explain', 'vm.spec', '--output=plaintext-openapiv2')).toContain('Guest memory.')
})

it('prints objects in every form', slow, async () => {
  const get = (output: string, ...more: string[]) => at.kubectl('get', 'vm', ...more, '-o', output)
  expect(await get('custom-columns=N:.metadata.name,M:.spec.memory', 'web')).toMatch(/^N +M\nweb +1Gi\n$/)
  expect(await get('jsonpath={.items[?(@.spec.memory=="2Gi")].metadata.name}')).toBe('db')
  expect(await get('go-template={{.spec.memory}}', 'mail')).toBe('3Gi')
  expect(await get('wide', 'web')).toMatch(/^NAME +STATUS +HOST +CPUS +MEMORY +RESTARTS +AGE +STRATEGY/)
  expect(await get('yaml', 'web')).toMatch(/^apiVersion: plasmavmc.io\/v1alpha1\nkind: VirtualMachine\n/)
  expect(JSON.parse(await get('json')).items).toHaveLength(4)
  expect(await get('name', '--sort-by=.spec.memory', '-l', 'tier')).toMatch(/web\n.*db\n.*mail\n/)
  expect(await at.kubectl('get', 'vm', '--show-labels', 'web')).toContain('app=web,tier=x')
  expect(await at.kubectl('get', 'vm', '-L', 'app', '--no-headers', 'db')).toMatch(/ db\n$/)
  expect(await at.kubectl('describe', 'vm', 'web')).toMatch(
    /^Name: +web\nNamespace: +default\nLabels: +app=web/,
  )
})

it('chooses by labels and fields, in pages', slow, async () => {
  const names = async (...args: string[]) =>
    (await at.kubectl('get', 'vm', '-o', 'custom-columns=N:.metadata.name', '--no-headers', ...args)).trim()
  expect(await names('-l', 'app in (web,db),tier=x,!none')).toBe('db\nweb')
  expect(await names('-l', 'app notin (web),tier')).toBe('db\nmail')
  expect(await names('--field-selector', 'status.phase=Running')).toBe('live')
  expect(await names('--field-selector', 'status.hostName==host-1,metadata.name!=x')).toBe('live')
  expect(await names('--field-selector', 'spec.runStrategy!=Always,metadata.name=web')).toBe('')
  expect(await names('--chunk-size=1', '-A')).toBe('db\nlive\nmail\nweb')
  await expect(names('--field-selector', 'spec.memory=1Gi')).rejects.toThrow(
    'field label not supported: spec.memory',
  )
  await expect(names('-l', 'a b')).rejects.toThrow('unable to parse')
})

it('watches tables and objects', slow, async () => {
  const table = at.begin('get', 'vm', '-w')
  const only = at.begin('get', 'vm', 'web', '--watch-only', '-o', 'json')
  try {
    expect(await table.says(/web /)).toMatch(/^NAME +STATUS/)
    const both = [table.says(/web .*7Gi/), only.says(/"memory": "7Gi"/)] as const
    // The one that shows no beginning may begin late.
    for (let memory = 0, done = false; !done; memory += 1) {
      const patch = { metadata: { labels: { n: `${memory}` } }, spec: { memory: '7Gi' } }
      await at.server.call('PATCH', `${machines}/web`, patch, { 'content-type': merge })
      done = await Promise.race([
        both[1].then(() => true),
        new Promise<false>((ok) => setTimeout(ok, 200, false)),
      ])
    }
    const [lines] = await Promise.all(both)
    expect(lines).not.toContain('{')
    expect(lines.match(/NAME/g)).toHaveLength(1)
  } finally {
    await Promise.all([table.stop(), only.stop()])
  }
})

it('waits for what it is told to', slow, async () => {
  const { kubectl, server } = at
  const status = (name: string, value: object) =>
    server.call('PATCH', `${machines}/${name}/status`, { status: value }, { 'content-type': merge })
  const time = '2026-01-02T03:04:05Z'
  const ready = { type: 'Ready', status: 'True', reason: 'Up', message: '', lastTransitionTime: time }
  const condition = kubectl('wait', 'vm/web', '--for=condition=Ready', '--timeout=50s')
  const value = kubectl('wait', 'vm/db', '--for=jsonpath={.status.phase}=Stopped', '--timeout=50s')
  const gone = kubectl('wait', 'vm/mail', '--for=delete', '--timeout=50s')
  await status('web', { phase: 'Running', conditions: [ready] })
  await status('db', { phase: 'Stopped' })
  await server.call('DELETE', `${machines}/mail`)
  for (const one of [condition, value, gone]) expect(await one).toMatch(/condition met|^$/)
  await expect(kubectl('wait', 'vm/web', '--for=condition=Lost', '--timeout=1s')).rejects.toThrow('timed out')
  const minor = Number(/"minor": "(\d+)/.exec(await kubectl('version', '--client', '-o', 'json'))?.[1])
  if (minor < 31) return // `create` came with 1.31.
  const created = kubectl('wait', 'vm/new', '--for=create', '--timeout=50s')
  await server.call('POST', machines, machine('new'))
  expect(await created).toContain('condition met')
})

it('shows events, all and those of one object', slow, async () => {
  for (const [name, type] of [
    ['web', 'Normal'],
    ['db', 'Warning'],
  ] as const) {
    const { metadata } = (await at.server.call('GET', `${machines}/${name}`)).json
    const now = new Date().toISOString().replace(/\.\d+/, '')
    await at.server.objects.create(Event, {
      ...{ apiVersion: 'v1', kind: 'Event', metadata: { name: `${name}.1`, namespace: 'default' } },
      ...{ type, reason: 'Launched', message: `${name} runs`, firstTimestamp: now, lastTimestamp: now },
      involvedObject: {
        ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', namespace: 'default' },
        ...{ name, uid: metadata.uid },
      },
    })
  }
  const { kubectl } = at
  expect(await kubectl('events')).toMatch(/LAST SEEN +TYPE +REASON +OBJECT +MESSAGE[\s\S]*(web|db) runs/)
  const one = await kubectl('events', '--for', 'vm/web')
  expect([one.includes('web runs'), one.includes('db runs')]).toEqual([true, false])
  expect(await kubectl('events', '--types=Warning')).not.toContain('web runs')
  expect(
    await kubectl('get', 'events', '--field-selector', 'involvedObject.name=db,type=Warning', '-o', 'name'),
  ).toBe('event/db.1\n')
  expect(await kubectl('describe', 'vm', 'db')).toMatch(/Events:[\s\S]*Warning +Launched[\s\S]*db runs/)
})

import { afterAll, beforeAll, expect, it } from 'vitest'
import { Event } from '../../src/resources/kinds.ts'
import { type Lab, machines, merge } from './fixture.ts'
import { type KubectlLab, kubectlLab } from './kubectl-lab.ts'

let at: KubectlLab
let server: Lab
const kubectl = (...args: string[]) => at.kubectl(...args)

beforeAll(async () => {
  at = await kubectlLab()
  server = at.server
})
afterAll(() => at.close())

function manifest(memory: string): string {
  const lines = [
    'apiVersion: plasmavmc.io/v1alpha1',
    'kind: VirtualMachine',
    'metadata: {name: web}',
    'spec:',
    `  memory: ${memory}`,
    '  disks:',
    '  - {name: root, size: 1Gi}',
  ]
  return at.file('vm.yaml', `${lines.join('\n')}\n`)
}

it('applies, changes, and leaves alone what is the same', { timeout: 120_000 }, async () => {
  expect(await kubectl('apply', '-f', manifest('1Gi'))).toContain('virtualmachine.plasmavmc.io/web created')
  const before = (await server.call('GET', `${machines}/web`)).json
  // kubectl says "configured" here, as with any custom resource whose lists have defaults: the server decides.
  await kubectl('apply', '-f', manifest('1Gi'))
  expect((await server.call('GET', `${machines}/web`)).json).toEqual(before)
  expect(await kubectl('apply', '-f', manifest('2Gi'))).toContain('configured')
  expect(await kubectl('diff', '-f', manifest('2Gi'))).toBe('')
  expect(await kubectl('get', 'vm', 'web', '-o', 'jsonpath={.spec.memory}')).toBe('2Gi')
  expect(await kubectl('api-resources')).toMatch(
    /virtualmachines +vm,vms +plasmavmc.io\/v1alpha1 +true +VirtualMachine/,
  )
  expect(await kubectl('explain', 'vm.spec.memory')).toContain('Guest memory')
})

it('refuses a typo before it is stored', { timeout: 120_000 }, async () => {
  const file = at.file(
    'typo.yaml',
    'apiVersion: plasmavmc.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: typo}\nspec: {memry: 1Gi}\n',
  )
  await expect(kubectl('apply', '-f', file)).rejects.toThrow(/memry/)
})

it('shows tables, descriptions with events, and waits', { timeout: 120_000 }, async () => {
  expect(await kubectl('get', 'vms')).toMatch(/^NAME +STATUS +HOST +CPUS +MEMORY +RESTARTS +AGE\nweb /)
  const { metadata } = (await server.call('GET', `${machines}/web`)).json
  await server.objects.create(Event, {
    ...{ apiVersion: 'v1', kind: 'Event', metadata: { name: 'web.1', namespace: 'default' } },
    ...{ type: 'Normal', reason: 'Launched', message: 'QEMU runs', count: 1 },
    involvedObject: { kind: 'VirtualMachine', name: 'web', namespace: 'default', uid: metadata.uid },
  })
  expect(await kubectl('describe', 'vm', 'web')).toMatch(/Events:[\s\S]*Launched[\s\S]*QEMU runs/)
  const waiting = kubectl('wait', 'vm/web', '--for=jsonpath={.status.phase}=Running', '--timeout=50s')
  const status = { status: { phase: 'Running' } }
  await server.call('PATCH', `${machines}/web/status`, status, { 'content-type': merge })
  expect(await waiting).toContain('condition met')
})

it('labels, edits by patch, and watches as a table', { timeout: 120_000 }, async () => {
  const watch = at.begin('get', 'vms', '-w')
  try {
    await watch.says(/web/)
    const changed = watch.says(/3Gi/)
    await kubectl('patch', 'vm', 'web', '--type=merge', '-p', '{"spec":{"memory":"3Gi"}}')
    expect(await changed).not.toContain('{')
  } finally {
    await watch.stop()
  }
  expect(await kubectl('label', 'vm', 'web', 'tier=front')).toContain('labeled')
  expect(await kubectl('get', 'vm', '-l', 'tier=front', '-o', 'name')).toContain(
    'virtualmachine.plasmavmc.io/web',
  )
  const patch = '[{"op":"remove","path":"/metadata/labels/tier"}]'
  expect(await kubectl('patch', 'vm', 'web', '--type=json', '-p', patch)).toContain('patched')
})

it("applies Kubernetes' own kinds again", { timeout: 120_000 }, async () => {
  const shop = (label: string) =>
    at.file('ns.yaml', `apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: ${label}}}\n`)
  expect(await kubectl('apply', '-f', shop('a'))).toContain('created')
  expect(await kubectl('apply', '-f', shop('b'))).toContain('configured')
})

it('deletes and waits until it is gone', { timeout: 120_000 }, async () => {
  expect(await kubectl('delete', 'vm', 'web', '--dry-run=server')).toContain('deleted')
  expect(await kubectl('get', 'vms')).toContain('web')
  expect(await kubectl('delete', 'vm', 'web')).toContain('deleted')
  expect(await kubectl('get', 'vms')).toContain('No resources found')
  await expect(kubectl('get', 'vm', 'web')).rejects.toThrow('virtualmachines.plasmavmc.io "web" not found')
})

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Event } from '../../src/resources/kinds.ts'
import { ensurePki } from '../../src/server/pki.ts'
import { type Lab, lab, machines, merge } from './fixture.ts'

const run = promisify(execFile)
const deadlineMs = 60_000

let dir: string
let server: Lab
let flags: string[]

/** The real kubectl, over TLS verified by our CA. */
async function kubectl(...args: string[]): Promise<string> {
  const { stdout, stderr } = await run('kubectl', [...flags, ...args], { timeout: deadlineMs })
  return stdout + stderr
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'pvk-'))
  const { key, cert } = await ensurePki(join(dir, 'pki'), { names: ['localhost'], now: Date.now() })
  server = await lab({ tls: { key, cert } })
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.app.server.address() as AddressInfo
  flags = [
    ...['--kubeconfig', '/dev/null', '--cache-dir', join(dir, 'cache'), '--token', 'admin'],
    ...['--server', `https://127.0.0.1:${port}`, '--certificate-authority', join(dir, 'pki', 'ca.crt')],
  ]
}, deadlineMs)
afterAll(async () => {
  await server.app.close()
  rmSync(dir, { recursive: true })
})

function manifest(memory: string): string {
  const file = join(dir, 'vm.yaml')
  const lines = [
    'apiVersion: plasmavmc.io/v1alpha1',
    'kind: VirtualMachine',
    'metadata: {name: web}',
    'spec:',
    `  memory: ${memory}`,
    '  disks:',
    '  - {name: root, size: 1Gi}',
  ]
  writeFileSync(file, `${lines.join('\n')}\n`)
  return file
}

/** Resolves with all that was written once `wanted` is in it. */
function output(child: ChildProcess, wanted: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    child.stdout?.on('data', (chunk) => {
      text += chunk
      if (wanted.test(text)) resolve(text)
    })
    child.once('close', () => reject(new Error(`ended without ${wanted}: ${text}`)))
  })
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
  const file = join(dir, 'typo.yaml')
  writeFileSync(
    file,
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
  const watch = spawn('kubectl', [...flags, 'get', 'vms', '-w'], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await output(watch, /web/)
    const changed = output(watch, /3Gi/)
    await kubectl('patch', 'vm', 'web', '--type=merge', '-p', '{"spec":{"memory":"3Gi"}}')
    expect(await changed).not.toContain('{')
  } finally {
    const closed = once(watch, 'close')
    watch.kill()
    await closed
  }
  expect(await kubectl('label', 'vm', 'web', 'tier=front')).toContain('labeled')
  expect(await kubectl('get', 'vm', '-l', 'tier=front', '-o', 'name')).toContain(
    'virtualmachine.plasmavmc.io/web',
  )
  const patch = '[{"op":"remove","path":"/metadata/labels/tier"}]'
  expect(await kubectl('patch', 'vm', 'web', '--type=json', '-p', patch)).toContain('patched')
})

it("applies Kubernetes' own kinds again", { timeout: 120_000 }, async () => {
  const file = join(dir, 'ns.yaml')
  const write = (label: string) =>
    writeFileSync(file, `apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: ${label}}}\n`)
  write('a')
  expect(await kubectl('apply', '-f', file)).toContain('created')
  write('b')
  expect(await kubectl('apply', '-f', file)).toContain('configured')
})

it('deletes and waits until it is gone', { timeout: 120_000 }, async () => {
  expect(await kubectl('delete', 'vm', 'web', '--dry-run=server')).toContain('deleted')
  expect(await kubectl('get', 'vms')).toContain('web')
  expect(await kubectl('delete', 'vm', 'web')).toContain('deleted')
  expect(await kubectl('get', 'vms')).toContain('No resources found')
  await expect(kubectl('get', 'vm', 'web')).rejects.toThrow('virtualmachines.plasmavmc.io "web" not found')
})

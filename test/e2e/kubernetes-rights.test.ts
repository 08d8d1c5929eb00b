import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { claimed } from '../../src/cli/host-fence.ts'
import { FenceEvidence } from '../../src/resources/fence-evidence.ts'
import { Host } from '../../src/resources/host.ts'
import { hostLeaseName, systemNamespace } from '../../src/resources/host-lease.ts'
import { Lease } from '../../src/resources/kinds.ts'
import { mayDo, roleRights } from '../../src/resources/rights.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { type KubeServer, KubeServers, writeKubeconfig } from '../fakes/kube-server.ts'
import { program, tiny } from './lab.ts'
import { endGuards, qemusOf } from './proc.ts'

type Role = (typeof roleRights)[number]['role']
const roleOf = (name: string): Role | undefined => roleRights.find(({ role }) => role === name)?.role

const dir = mkdtempSync(join(tmpdir(), 'pvr-'))
const servers = new KubeServers()
const children: ChildProcess[] = []
const used = new Map<Role, Set<string>>(roleRights.map(({ role }) => [role, new Set()]))
const denied = new Set<string>()
let server: KubeServer

/** An API server that lets each role do what its RBAC says, and writes down what it did. */
beforeAll(async () => {
  server = await servers.start({
    authenticate: ({ headers }) => {
      const token = /Bearer (\w+)/.exec(JSON.stringify(headers))?.[1] ?? ''
      return { ok: true, identity: { name: token, groups: [] } }
    },
    authorize: ({ name }, verb, target) => {
      const role = roleOf(name)
      if (!role || !('resource' in target)) return true
      const { resource, subresource } = target
      const words = `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}`
      const allowed = mayDo(role, { ...target, verb })
      if (allowed) used.get(role)?.add(words)
      else denied.add(`${role}: ${words}`)
      return allowed
    },
  })
  await start('controller')
  await start('agent')
})
afterAll(async () => {
  for (const child of children) {
    const ended = once(child, 'exit')
    if (child.exitCode === null && child.kill('SIGTERM')) await ended
  }
  endGuards(dir)
  for (const { pid } of qemus()) process.kill(pid, 'SIGKILL')
  await servers.end()
  rmSync(dir, { recursive: true, force: true })
})

const qemus = () => qemusOf((argv) => argv.some((word) => word.includes(`${dir}/`)))
const logOf = (name: string) => readFileSync(join(dir, `${name}.log`), 'utf8')

async function start(role: Role, name: string = role): Promise<ChildProcess> {
  const kubeconfig = join(dir, `kubeconfig-${role}`)
  const { ca } = await servers.pki
  writeKubeconfig(kubeconfig, { ca, server: `https://127.0.0.1:${server.port}`, user: { token: role } })
  const output = openSync(join(dir, `${name}.log`), 'a')
  const store = ['--store', 'kubernetes', '--kubeconfig', kubeconfig, '--roles', role]
  const own = ['--data-dir', join(dir, name, 'd'), '--run-dir', join(dir, name, 'r')]
  const argv = ['serve', ...store, ...own, '--host-name', name, '--accelerator', 'tcg']
  const child = spawn(program, argv, { stdio: ['ignore', output, output] })
  children.push(child)
  closeSync(output)
  return child
}

async function create(name: string, spec: object = {}): Promise<void> {
  const { metadata, ...rest } = tiny(name, spec as never) as { metadata: object }
  const object = { ...rest, metadata: { ...metadata, namespace: 'default' } }
  await server.objects.create(VirtualMachine, object as never)
}

const find = (name: string) =>
  server.objects.get(VirtualMachine, { namespace: 'default', name }).catch(() => undefined)

async function phaseOf(name: string): Promise<string | undefined> {
  const vm = await find(name)
  return vm && (vm.status?.phase ?? 'Pending')
}

const wait = { timeout: 60_000, interval: 100 }

test('a controller and an agent run machines with the rights that deploy/kubernetes gives them, and need them', async () => {
  await create('a')
  await create('b')
  await expect.poll(() => phaseOf('a'), wait).toBe('Running')
  await expect.poll(() => phaseOf('b'), wait).toBe('Running')
  expect(qemus()).toHaveLength(2)
  await server.objects.delete(VirtualMachine, { namespace: 'default', name: 'a' })
  await expect.poll(() => phaseOf('a'), wait).toBeUndefined()
  expect(qemus()).toHaveLength(1)
  // Whoever may not make the namespace finds it made.
  expect([...denied].sort()).toEqual(['agent: create namespaces', 'controller: create namespaces'])
  expect(logOf('agent')).not.toContain('"level":50')
  // What is left is for what did not happen here: pools, lost hosts, a name that another host had, an event told twice.
  const rare: Record<Role, string[]> = {
    agent: [
      ...['get fenceevidences', 'list fenceevidences'],
      ...['update hosts', 'update storagepools/status', 'update events'],
    ],
    controller: [
      ...['get fenceevidences', 'create fenceevidences', 'delete fenceevidences'],
      ...['get virtualmachines', 'delete leases', 'update events'],
    ],
  }
  for (const { role, rights } of roleRights) {
    const all = rights.flatMap(({ resources, verbs }) =>
      resources.flatMap((resource) => verbs.map((verb) => `${verb} ${resource}`)),
    )
    const unused = () => all.filter((words) => !used.get(role)?.has(words) && !rare[role].includes(words))
    await expect.poll(unused, wait).toEqual([])
  }
})

test('a lost host keeps its machines until a person says that it is off', async () => {
  await create('c', { recovery: { onHostLoss: 'Failover' } })
  await expect.poll(() => phaseOf('c'), wait).toBe('Running')
  // Two, so that less than half of the hosts is lost.
  for (const name of ['other', 'third']) await start('agent', name)
  const isReady = async (name: string) =>
    (await server.objects.list(Host)).items
      .find(({ metadata }) => metadata.name === name)
      ?.status?.conditions.find(({ type }) => type === 'Ready')?.status
  for (const name of ['other', 'third']) await expect.poll(() => isReady(name), wait).toBe('True')
  // The whole host goes at once, and it is one whose leader would fail it over, could it ask anybody.
  const host = await server.objects.get(Host, { name: 'agent' })
  const fencing = { ...host.spec.fencing, mode: 'guard' as const }
  await server.objects.update(Host, { ...host, spec: { ...host.spec, fencing } })
  const [, agent] = children
  agent?.kill('SIGKILL')
  endGuards(join(dir, 'agent'))
  for (const { pid } of qemus()) process.kill(pid, 'SIGKILL')
  await expect.poll(() => isReady('agent'), wait).not.toBe('True')
  await expect.poll(async () => (await find('c'))?.status?.phase, wait).toBe('Unknown')
  const ref = { namespace: systemNamespace, name: hostLeaseName('agent') }
  const lease = await server.objects.get(Lease, ref)
  expect(lease.spec.holderIdentity).toMatch(/^agent\//)
  expect(lease.metadata.annotations).toMatchObject({ 'plasmavmc.io/self-fence': 'none' })
  expect((await find('c'))?.status?.hostName).toBe('agent')
  expect(qemus()).toEqual([])
  const said = { silentMs: 30_000, by: 'me', reason: 'it burns', at: new Date().toISOString() }
  await server.objects.create(FenceEvidence, claimed({ host: 'agent', lease, ...said } as never) as never)
  await expect.poll(async () => (await find('c'))?.status?.hostName, wait).toMatch(/other|third/)
  await expect.poll(() => phaseOf('c'), wait).toBe('Running')
  expect(qemus()).toHaveLength(1)
  expect((await find('b'))?.status?.hostName).toBe('agent')
})

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
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
  for (const role of ['controller', 'agent'] as const) start(role)
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
const logOf = (role: Role) => readFileSync(join(dir, `${role}.log`), 'utf8')

async function start(role: Role): Promise<void> {
  const kubeconfig = join(dir, `kubeconfig-${role}`)
  const { ca } = await servers.pki
  writeKubeconfig(kubeconfig, { ca, server: `https://127.0.0.1:${server.port}`, user: { token: role } })
  const output = openSync(join(dir, `${role}.log`), 'a')
  const store = ['--store', 'kubernetes', '--kubeconfig', kubeconfig, '--roles', role]
  const own = ['--data-dir', join(dir, `${role}-d`), '--run-dir', join(dir, `${role}-r`)]
  const argv = ['serve', ...store, ...own, '--host-name', `${role}-1`, '--accelerator', 'tcg']
  children.push(spawn(program, argv, { stdio: ['ignore', output, output] }))
  closeSync(output)
}

async function phaseOf(name: string): Promise<string | undefined> {
  const vm = await server.objects.get(VirtualMachine, { namespace: 'default', name }).catch(() => undefined)
  return vm && (vm.status?.phase ?? 'Pending')
}

test('a controller and an agent run machines with the rights that deploy/kubernetes gives them, and need them', async () => {
  const wait = { timeout: 60_000, interval: 100 }
  for (const name of ['a', 'b']) {
    const { metadata, ...rest } = tiny(name) as { metadata: object }
    await server.objects.create(VirtualMachine, {
      ...rest,
      metadata: { ...metadata, namespace: 'default' },
    } as never)
  }
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

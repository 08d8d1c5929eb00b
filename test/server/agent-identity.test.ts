import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { agentHost } from '../../src/auth/agent.ts'
import type { Client } from '../../src/cli/client.ts'
import { hostSpec } from '../../src/resources/host.ts'
import { systemNamespace } from '../../src/resources/host-lease.ts'
import { Host, Lease, Namespace, namespaceNamed, StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine, vmStatus } from '../../src/resources/vm.ts'
import { IdentitiesLab, keysPath } from './identities-lab.ts'

const own = { apiVersion: 'plasmavmc.io/v1alpha1' } as const
const machines = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'
const hosts = '/apis/plasmavmc.io/v1alpha1/hosts'
const leases = `/apis/coordination.k8s.io/v1/namespaces/${systemNamespace}/leases`
const forbidden = (words: RegExp) => ({ code: 'Forbidden', message: expect.stringMatching(words) })

let lab: IdentitiesLab
let agent: Client

/** A machine on a host, or on none. */
async function machine(name: string, hostName?: string): Promise<VirtualMachine> {
  const metadata = { name, namespace: 'default' }
  const made = await lab.objects.create(VirtualMachine, {
    ...{ ...own, kind: 'VirtualMachine', metadata, spec: {} },
  } as never)
  if (hostName === undefined) return made
  return lab.objects.updateStatus(VirtualMachine, {
    ...made,
    status: vmStatus.parse({ phase: 'Pending', hostName }),
  })
}

beforeAll(async () => {
  lab = await IdentitiesLab.start()
  agent = lab.client(await lab.key('system:host:a', ['system:hosts']))
  await lab.objects.create(Namespace, namespaceNamed(systemNamespace))
  for (const name of ['a', 'b']) {
    await lab.objects.create(Host, {
      ...own,
      kind: 'Host',
      metadata: { name },
      spec: hostSpec.parse({}),
    } as never)
    await lab.objects.create(Lease, {
      ...{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', spec: {} },
      metadata: { name: `host-${name}`, namespace: systemNamespace },
    })
  }
  await lab.objects.create(StoragePool, {
    ...own,
    kind: 'StoragePool',
    metadata: { name: 'p' },
    spec: { path: '/p' },
  } as never)
})
afterAll(() => lab.close())

const put = (path: string, object: unknown) => agent.json('PUT', path, { body: object })
const status = (vm: VirtualMachine, change: object) =>
  put(`${machines}/${vm.metadata.name}/status`, { ...vm, status: { ...vm.status, ...change } })

describe('the agent of a host', () => {
  it('is known by its name and its group together', () => {
    expect(agentHost({ name: 'system:host:a', groups: ['system:hosts'] })).toBe('a')
    expect(agentHost({ name: 'system:host:a', groups: [] })).toBeUndefined()
    expect(agentHost({ name: 'a', groups: ['system:hosts'] })).toBeUndefined()
    expect(agentHost({ name: 'system:host:', groups: ['system:hosts'] })).toBeUndefined()
  })

  it('writes the status of its own machines, takes one that is nobody’s, and gives one up', async () => {
    await status(await machine('mine', 'a'), { phase: 'Running' })
    await status(await machine('free'), { phase: 'Pending', hostName: 'a' })
    await status(await machine('left', 'a'), { hostName: undefined })
  })

  it('leaves alone those of other hosts, and gives none to them', async () => {
    const other = await machine('other', 'b')
    await expect(status(other, { phase: 'Running' })).rejects.toMatchObject(
      forbidden(/it is on the host b, not on a/),
    )
    await expect(status(other, { hostName: 'a' })).rejects.toMatchObject(forbidden(/it is on the host b/))
    await expect(
      put(`${machines}/other`, { ...other, metadata: { ...other.metadata, finalizers: ['x.io/y'] } }),
    ).rejects.toMatchObject(forbidden(/it is on the host b/))
    await expect(status(await machine('given', 'a'), { hostName: 'b' })).rejects.toMatchObject(
      forbidden(/gives it to no other host/),
    )
    expect(
      (await lab.objects.get(VirtualMachine, { namespace: 'default', name: 'other' })).status?.hostName,
    ).toBe('b')
  })

  it('changes finalizers of its machines, and nothing else that people write', async () => {
    const vm = await machine('held', 'a')
    const held = (await put(`${machines}/held`, {
      ...vm,
      metadata: { ...vm.metadata, finalizers: ['plasmavmc.io/vm'] },
    })) as VirtualMachine
    expect(held.metadata.finalizers).toEqual(['plasmavmc.io/vm'])
    const words = forbidden(/changes nothing of it but finalizers and status/)
    await expect(
      put(`${machines}/held`, { ...held, spec: { ...held.spec, memory: '1Gi' } }),
    ).rejects.toMatchObject(words)
    await expect(
      put(`${machines}/held`, { ...held, metadata: { ...held.metadata, labels: { a: 'b' } } }),
    ).rejects.toMatchObject(words)
    await expect(agent.json('DELETE', `${machines}/held`)).rejects.toMatchObject(forbidden(/cannot delete/))
    await expect(
      agent.json('POST', machines, { body: { metadata: { name: 'new' }, spec: {} } }),
    ).rejects.toMatchObject(forbidden(/cannot create/))
    await expect(agent.json('POST', `${machines}/held/stop`, { body: {} })).rejects.toMatchObject(
      forbidden(/cannot create resource "virtualmachines\/stop"/),
    )
  })

  it('writes its own Host and lease, and no other', async () => {
    const get = (path: string) => lab.client().json<object>('GET', path)
    for (const [path, name] of [
      [hosts, ''],
      [leases, 'host-'],
    ] as const) {
      await put(`${path}/${name}a`, await get(`${path}/${name}a`))
      await expect(put(`${path}/${name}b`, await get(`${path}/${name}b`))).rejects.toMatchObject(
        forbidden(/cannot update/),
      )
    }
    const lease = { metadata: { name: 'controller' }, spec: {} }
    await expect(agent.json('POST', leases, { body: lease })).rejects.toMatchObject(
      forbidden(/holds no other lease/),
    )
    await expect(agent.json('POST', hosts, { body: { metadata: { name: 'c' } } })).rejects.toMatchObject(
      forbidden(/writes no other Host/),
    )
    await expect(agent.json('GET', '/apis/coordination.k8s.io/v1/leases')).rejects.toMatchObject(
      forbidden(/cannot list/),
    )
  })

  it('sees what it needs, and no keys, roles or secrets', async () => {
    for (const path of [
      machines,
      '/apis/plasmavmc.io/v1alpha1/virtualmachines',
      hosts,
      leases,
      '/apis/plasmavmc.io/v1alpha1/storagepools',
    ])
      expect(await agent.json('GET', path)).toHaveProperty('items')
    for (const path of [keysPath, '/apis/rbac.authorization.k8s.io/v1/clusterroles', '/metrics'])
      await expect(agent.json('GET', path)).rejects.toMatchObject({ code: 'Forbidden' })
  })

  it('is bound by its host even where a role gives it more', async () => {
    const rbac = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings'
    const body = {
      metadata: { name: 'too-much' },
      subjects: [{ kind: 'Group', name: 'system:hosts' }],
      roleRef: { kind: 'ClusterRole', name: 'cluster-admin' },
    }
    await lab.client().json('POST', rbac, { body })
    const vm = await machine('far', 'b')
    const refused = () => put(`${machines}/far`, { ...vm, spec: { ...vm.spec, memory: '1Gi' } })
    await expect(refused()).rejects.toMatchObject(forbidden(/it is on the host b/))
    await expect(agent.json('DELETE', `${machines}/far`)).rejects.toMatchObject(
      forbidden(/makes and deletes no machines/),
    )
    await lab.client().json('DELETE', `${rbac}/too-much`)
  })
})

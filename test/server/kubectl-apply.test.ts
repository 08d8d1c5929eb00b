import { afterAll, beforeAll, expect, it } from 'vitest'
import { machines, merge } from './fixture.ts'
import { type KubectlLab, kubectlLab } from './kubectl-lab.ts'

let at: KubectlLab
const kubectl = (...args: string[]) => at.kubectl(...args)

beforeAll(async () => {
  at = await kubectlLab()
})
afterAll(() => at.close())

function manifest(name: string, spec: string): string {
  const lines = ['apiVersion: plasmavmc.io/v1alpha1', 'kind: VirtualMachine', `metadata: {name: ${name}}`]
  return at.file(`${name}.yaml`, `${[...lines, `spec: ${spec}`].join('\n')}\n`)
}

const managersOf = async (name: string) =>
  (await at.server.call('GET', `${machines}/${name}`)).json.metadata.managedFields.map(
    ({ manager, operation }: { manager: string; operation: string }) => `${manager} ${operation}`,
  )

it('applies on the server: makes, leaves alone, changes', { timeout: 120_000 }, async () => {
  const file = manifest('web', '{memory: 1Gi, disks: [{name: root, size: 1Gi}]}')
  expect(await kubectl('apply', '--server-side', '-f', file)).toContain('web serverside-applied')
  const before = (await at.server.call('GET', `${machines}/web`)).json
  expect(await kubectl('diff', '--server-side', '-f', file)).toBe('')
  await kubectl('apply', '--server-side', '-f', file)
  expect((await at.server.call('GET', `${machines}/web`)).json).toEqual(before)
  await kubectl('apply', '--server-side', '-f', manifest('web', '{memory: 2Gi}'))
  const { spec } = (await at.server.call('GET', `${machines}/web`)).json
  expect([spec.memory, spec.disks]).toEqual(['2Gi', []])
  expect(await managersOf('web')).toEqual(['kubectl Apply'])
})

it('is refused what is another’s, says whose, and takes it by force', { timeout: 120_000 }, async () => {
  await kubectl('apply', '--server-side', '-f', manifest('db', '{memory: 1Gi}'))
  await kubectl('patch', 'vm', 'db', '--type=merge', '-p', '{"spec":{"memory":"3Gi"}}')
  const file = manifest('db', '{memory: 2Gi}')
  const refused = kubectl('apply', '--server-side', '-f', file)
  await expect(refused).rejects.toThrow(
    /conflict with "kubectl-patch" using plasmavmc.io\/v1alpha1.*\.spec\.memory/,
  )
  await expect(refused).rejects.toThrow(/re-run the apply[\s\S]*--force-conflicts/)
  const diff = kubectl('diff', '--server-side', '--force-conflicts', '-f', file)
  await expect(diff).rejects.toMatchObject({ code: 1, stdout: expect.stringContaining('+  memory: 2Gi') })
  await kubectl('apply', '--server-side', '--force-conflicts', '-f', file)
  expect((await at.server.call('GET', `${machines}/db`)).json.spec.memory).toBe('2Gi')
  expect(await managersOf('db')).toEqual(['kubectl Apply'])
})

it('goes over from client-side apply, and a removed field goes', { timeout: 120_000 }, async () => {
  const both = '{memory: 1Gi, machine: pc}'
  await kubectl('apply', '-f', manifest('old', both))
  expect(await managersOf('old')).toEqual(['kubectl-client-side-apply Update'])
  await kubectl('apply', '--server-side', '-f', manifest('old', '{memory: 2Gi}'))
  const { spec } = (await at.server.call('GET', `${machines}/old`)).json
  expect([spec.memory, spec.machine]).toEqual(['2Gi', 'q35'])
  // And back.
  expect(await kubectl('apply', '-f', manifest('old', both))).toContain('configured')
  expect((await at.server.call('GET', `${machines}/old`)).json.spec.machine).toBe('pc')
})

it('shows the account when it is asked for', { timeout: 120_000 }, async () => {
  expect(await kubectl('get', 'vm', 'web', '-o', 'yaml')).not.toContain('managedFields')
  expect(await kubectl('get', 'vm', 'web', '-o', 'yaml', '--show-managed-fields')).toContain('f:memory')
})

it('two tools share a machine', { timeout: 120_000 }, async () => {
  await kubectl('apply', '--server-side', '-f', manifest('shared', '{memory: 1Gi}'))
  const other = manifest('shared', '{disks: [{name: data, size: 1Gi}]}')
  await kubectl('apply', '--server-side', '--field-manager=storage', '-f', other)
  await kubectl('label', 'vm', 'shared', 'tier=gold')
  await at.server.call(
    'PATCH',
    `${machines}/shared/status`,
    { status: { phase: 'Running' } },
    {
      'content-type': merge,
    },
  )
  await kubectl('apply', '--server-side', '-f', manifest('shared', '{memory: 2Gi}'))
  const { spec, metadata, status } = (await at.server.call('GET', `${machines}/shared`)).json
  expect(spec.memory).toBe('2Gi')
  expect(spec.disks[0].name).toBe('data')
  expect(metadata.labels).toEqual({ tier: 'gold' })
  expect(status.phase).toBe('Running')
})

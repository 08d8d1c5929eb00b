import { expect } from 'vitest'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { keyFor } from '../../src/store/object-keys.ts'
import { asNewerVersion } from '../fakes/newer-version.ts'
import { test } from './lab.ts'

const ref = { namespace: 'default', name: 'web' }
type Change = Parameters<typeof asNewerVersion>[3]

test('a machine that another version stored is left alone, running or not, until it is understood', async ({
  lab,
}) => {
  const change = (by: Change) => asNewerVersion(lab.kv, VirtualMachine, ref, by)
  const agent = lab.agent()
  await lab.create({ runStrategy: 'Always' })
  const { process } = await lab.untilPhase('Running')
  await change(({ spec, status }) => {
    spec['runStrategy'] = 'Nightly'
    status['weather'] = 'fine'
  })
  const unclear = await lab.untilPhase('Unknown', ({ reason }) => reason === 'NotUnderstood')
  expect(unclear.message).toMatch(/^host \S+ does nothing with it.*spec\.runStrategy: .*upgrade/)
  expect(unclear.process).toEqual(process)
  expect(await lab.events()).toContain('Warning NotUnderstood')
  // Not even when its QEMU is gone.
  globalThis.process.kill(lab.qemu().pid, 'SIGKILL')
  await agent.passes(1)
  expect(lab.starts()).toBe(1)
  await change(({ spec }) => {
    spec['runStrategy'] = 'Always'
  })
  await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
  expect((await lab.status()) as unknown).toMatchObject({ lastExit: { reason: 'Killed' } })
  const entry = await lab.kv.get(keyFor(VirtualMachine, ref))
  const stored = JSON.parse(entry?.value ?? '{}')
  expect(stored.status.weather, 'what the other version alone knows').toBe('fine')
})

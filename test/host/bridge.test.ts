import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { HostProcesses } from '../../src/host/processes.ts'
import { tapName } from '../../src/host/qemu-args.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

const uid = '0b1d6e00-0000-4000-8000-00000000b41d'

test('a bridged machine whose bridge is missing is refused by name, and nothing is started', async () => {
  const runDir = await mkdtemp(join(tmpdir(), 'pvb-'))
  const processes = new HostProcesses({
    runDir,
    hostName: 'h',
    accelerator: 'tcg',
    clock: systemClock,
    log: silentLog,
  })
  const body = VirtualMachine.body.parse({
    spec: { networks: [{ name: 'lan', bridge: { name: 'pvmc-none' } }] },
  })
  const metadata = { name: 'b', namespace: 'default', uid }
  const vm = {
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: 'VirtualMachine',
    metadata,
    ...body,
  } as VirtualMachine
  try {
    const launch = processes.launch({ vm, launchId: 'l', epoch: 0, disks: new Map() })
    await expect(launch).rejects.toMatchObject({
      code: 'BridgeMissing',
      message: expect.stringContaining('pvmc-none'),
    })
    expect((await processes.scan()).processes.filter((process) => process.uid === uid)).toEqual([])
    expect(() => execFileSync('ip', ['link', 'show', tapName(uid, 'lan')], { stdio: 'ignore' })).toThrow()
  } finally {
    await rm(runDir, { recursive: true, force: true })
  }
})

import { existsSync, readdirSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { Lab, machinesPath, processOf, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let lab: Lab
let stalled: Server

beforeAll(async () => {
  // An image whose download begins and does not go on.
  stalled = createServer((_request, response) => {
    response.writeHead(200, { 'content-length': 1 << 20 })
    response.write('begun')
  })
  await new Promise<void>((listening) => stalled.listen(0, '127.0.0.1', listening))
  lab = await Lab.start()
})
afterAll(async () => {
  await lab.close()
  stalled.closeAllConnections()
  stalled.close()
})

const disks = [{ name: 'data', size: '1Mi' }]
const is = (phase: string) => (vm: VirtualMachine) => vm.status?.phase === phase

async function make(name: string, spec: Parameters<typeof tiny>[1] = {}): Promise<VirtualMachine> {
  await lab.create(tiny(name, { disks, ...spec }))
  return lab.running(name)
}

/** Nothing is left of a machine: no process, no run directory, no file of its disks. */
function nothingLeft(vm: VirtualMachine): void {
  const uid = uidOf(vm)
  expect(lab.qemus(uid)).toEqual([])
  expect(existsSync(lab.paths(uid).dir)).toBe(false)
  const files = readdirSync(lab.dataDir, { recursive: true, encoding: 'utf8' })
  expect(files.filter((file) => file.includes(uid))).toEqual([])
}

function diskOf(vm: VirtualMachine): string {
  return vm.status?.disks[0]?.path ?? ''
}

test.concurrent('a QEMU stopped by a signal is Unresponsive, alone, and Running again when it goes on', async () => {
  const vm = await make('stopped')
  const { pid, startTime, launchId } = processOf(vm)
  process.kill(pid, 'SIGSTOP')
  const hung = await lab.sees('stopped', 'is known to be stopped', ({ status }) => {
    return status?.phase === 'Unresponsive' && status.reason === 'ProcessStopped'
  })
  expect(hung.status?.message).toContain(`kill -CONT ${pid}`)
  expect(hung.status?.conditions[0]).toMatchObject({ type: 'Ready', status: 'Unknown' })
  expect(lab.qemus(uidOf(vm)).map((qemu) => qemu.pid)).toEqual([pid])
  process.kill(pid, 'SIGCONT')
  const again = await lab.running('stopped')
  expect(processOf(again)).toMatchObject({ pid, startTime, launchId })
  expect(again.status?.restarts).toBe(0)
})

test.concurrent('a QEMU stopped by a signal is killed after the grace period when it is to stop', async () => {
  const vm = await make('stop')
  const { pid, launchId } = processOf(vm)
  process.kill(pid, 'SIGSTOP')
  await lab.sees('stop', 'is Unresponsive', is('Unresponsive'))
  await lab.verb('stop', 'stop')
  const down = await lab.sees('stop', 'is Stopped', is('Stopped'))
  expect(down.status?.lastExit).toMatchObject({ reason: 'Stopped', launchId })
  expect(() => startTimeOf(pid)).toThrow()
  expect(lab.qemus(uidOf(vm))).toEqual([])
})

test.concurrent('deletion while it hangs: killed after the grace period', async () => {
  const vm = await make('hanging')
  process.kill(processOf(vm).pid, 'SIGSTOP')
  await lab.sees('hanging', 'is Unresponsive', is('Unresponsive'))
  expect(await lab.cli('delete', 'vm', 'hanging')).toMatchObject({ code: 0 })
  nothingLeft(vm)
})

test.concurrent('deletion while it hangs: describe says why it is still there', async () => {
  const vm = await make('held', { terminationGracePeriodSeconds: 3600 })
  const { pid } = processOf(vm)
  process.kill(pid, 'SIGSTOP')
  await lab.sees('held', 'is Unresponsive', is('Unresponsive'))
  await lab.remove('held')
  await lab.sees('held', 'is Terminating and known to be stopped', ({ status }) => {
    return status?.phase === 'Terminating' && status.reason === 'ProcessStopped'
  })
  const { stdout } = await lab.cli('describe', 'vm', 'held')
  expect(stdout).toMatch(/Held by: +plasmavmc.io\/host-cleanup/)
  expect(stdout).toMatch(/^Why: .*stopped by a signal/m)
  // Told once, not with every look.
  expect(stdout).toMatch(/Warning +Unresponsive .*[^)]$/m)
  process.kill(pid, 'SIGKILL')
  await lab.gone('held')
  nothingLeft(vm)
})

test.concurrent('deletion while Running', async () => {
  const vm = await make('running')
  expect(existsSync(diskOf(vm))).toBe(true)
  const deleted = await lab.cli('delete', 'vm', 'running')
  expect(deleted).toMatchObject({ code: 0, stdout: 'virtualmachine.plasmavmc.io "running" deleted\n' })
  expect((await lab.cli('get', 'vm', 'running')).stderr).toContain('"running" not found')
  nothingLeft(vm)
})

test.concurrent('a namespace goes with the machine that runs in it, and its process', async () => {
  const namespaces = '/api/v1/namespaces'
  await lab.client.json('POST', namespaces, { body: { metadata: { name: 'shop' } } })
  const path = `${machinesPath.replace('/default/', '/shop/')}`
  const { metadata, ...rest } = tiny('web', { disks }) as { metadata: object }
  await lab.client.json('POST', path, { body: { ...rest, metadata: { ...metadata, namespace: 'shop' } } })
  const read = () => lab.client.json<VirtualMachine>('GET', `${path}/web`)
  await expect.poll(async () => (await read()).status?.phase, { timeout: 60_000 }).toBe('Running')
  const vm = await read()
  expect(lab.qemus(uidOf(vm))).toHaveLength(1)
  await lab.client.json('DELETE', `${namespaces}/shop`)
  const left = async () => {
    const { items } = await lab.client.json<{ items: { metadata: { name: string } }[] }>('GET', namespaces)
    return items.map((one) => one.metadata.name)
  }
  await expect.poll(left, { timeout: 60_000 }).not.toContain('shop')
  nothingLeft(vm)
})

test.concurrent('a machine goes after its owner, through its own finalizer', async () => {
  const pools = '/apis/plasmavmc.io/v1alpha1/storagepools'
  const pool = { metadata: { name: 'owner' }, spec: { path: '/tmp' } }
  const made = await lab.client.json<VirtualMachine>('POST', pools, { body: pool })
  const { apiVersion, kind } = made
  const owner = { apiVersion, kind, name: 'owner', uid: uidOf(made) }
  const { metadata, ...rest } = tiny('owned', { disks }) as { metadata: object }
  await lab.create({ ...rest, metadata: { ...metadata, ownerReferences: [owner] } })
  const vm = await lab.running('owned')
  await lab.client.json('DELETE', `${pools}/owner`)
  await lab.gone('owned')
  nothingLeft(vm)
})

test.concurrent('deletion while Paused', async () => {
  const vm = await make('paused')
  await lab.verb('paused', 'pause')
  await lab.sees('paused', 'is Paused', is('Paused'))
  await lab.remove('paused')
  await lab.gone('paused')
  nothingLeft(vm)
})

test.concurrent('deletion while Provisioning', async () => {
  const { port } = stalled.address() as AddressInfo
  const image = { source: `http://127.0.0.1:${port}/image`, sha256: '0'.repeat(64) }
  await lab.create(tiny('provisioning', { disks: [{ name: 'root', image }] }))
  const vm = await lab.sees('provisioning', 'is Provisioning', is('Provisioning'))
  await lab.remove('provisioning')
  await lab.gone('provisioning')
  nothingLeft(vm)
})

test.concurrent('deletion while it waits after crashes', async () => {
  let vm = await make('crashing')
  for (;;) {
    const { pid, launchId } = processOf(vm)
    process.kill(pid, 'SIGKILL')
    vm = await lab.sees('crashing', 'is up again or waits', ({ status }) => {
      const again = status?.phase === 'Running' && status.process?.launchId !== launchId
      return again || status?.phase === 'CrashLoopBackOff'
    })
    if (vm.status?.phase === 'CrashLoopBackOff') break
  }
  expect(vm.status?.message).toMatch(/next try at 20.*, after \d failures in a row; last Killed/)
  await lab.remove('crashing')
  await lab.gone('crashing')
  nothingLeft(vm)
})

test.concurrent('deletion at once where QEMU dies while the guest may still power down', async () => {
  const vm = await make('deaf', { terminationGracePeriodSeconds: 3600 })
  expect(await lab.cli('delete', 'vm', 'deaf', '--wait=false')).toMatchObject({ code: 0 })
  await lab.sees('deaf', 'is Terminating', is('Terminating'))
  const { stdout } = await lab.cli('describe', 'vm', 'deaf')
  expect(stdout).toMatch(/^Why: .*powering down since .*, at most 3600 s/m)
  const late = await lab.cli('wait', 'vm', 'deaf', '--for=delete', '--timeout=1s')
  expect(late.code).toBe(1)
  expect(late.stderr).toMatch(/timed out after 1 s .*Terminating.*at most 3600 s; held by finalizer/)
  process.kill(processOf(vm).pid, 'SIGKILL')
  expect(await lab.cli('wait', 'vm', 'deaf', '--for=delete')).toMatchObject({ code: 0 })
  nothingLeft(vm)
})

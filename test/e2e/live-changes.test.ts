import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import type { LaunchRecord } from '../../src/host/ports.ts'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { Lab, linux, processOf, tiny, tinyKernel, uidOf } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
})
afterAll(() => lab.close())

const timeout = 300_000
const data = { name: 'data', size: '16Mi', format: 'raw' }
const grown = { ...data, size: '32Mi' }
const extra = { name: 'extra', size: '8Mi' }

const conditionOf = ({ status }: VirtualMachine, type: string) =>
  status?.conditions.find((c) => c.type === type)

/** Boots the guest. @returns the machine as it then is */
async function boot(name: string, spec: Record<string, unknown>): Promise<VirtualMachine> {
  const uid = uidOf(await lab.create(linux(name, spec)))
  await lab.booted(uid, 1)
  return lab.running(name)
}

/** Changes the spec and waits until the agent has brought it about, whatever it has to say of a restart. */
async function change(name: string, spec: Record<string, unknown>): Promise<VirtualMachine> {
  const { metadata } = await lab.patch(name, { spec })
  return lab.sees(name, 'is synchronized', (vm) => {
    const condition = conditionOf(vm, 'Synchronized')
    return condition?.status === 'True' && (condition.observedGeneration ?? 0) >= (metadata.generation ?? 0)
  })
}

let asked = 0

/** What the guest answers to a line of shell. */
async function guestSays(vm: VirtualMachine, line: string): Promise<string> {
  const mark = `m${asked++}`
  await lab.type(uidOf(vm), `echo "${mark}"="$(${line})"=end`)
  const answer = new RegExp(`^${mark}=([^]*?)=end`, 'm')
  await lab.until(`the guest answers ${line}`, () => answer.test(lab.console(uidOf(vm))))
  return (
    answer
      .exec(lab.console(uidOf(vm)))?.[1]
      ?.trim()
      .replaceAll('\r', '') ?? ''
  )
}

function runsWith(vm: VirtualMachine): VirtualMachine['spec'] {
  const record: LaunchRecord = JSON.parse(readFileSync(lab.paths(uidOf(vm)).launch, 'utf8'))
  return record.manifest.spec
}

const untouched = (before: VirtualMachine, after: VirtualMachine) => {
  expect(processOf(after)).toMatchObject({ pid: processOf(before).pid, launchId: processOf(before).launchId })
  expect(after.status).toMatchObject({ phase: 'Running', restarts: 0 })
  expect(conditionOf(after, 'RestartRequired')?.status).toBe('False')
}

let shared: Promise<VirtualMachine> | undefined

/** One guest for all changes under which it goes on: each test takes it as the one before left it. */
function guest(): Promise<VirtualMachine> {
  shared ??= boot('guest', { disks: [data], networks: [{ name: 'nat' }] })
  return shared
}

test('a network card comes and goes while the guest runs', { timeout }, async () => {
  const vm = await guest()
  const added = await change('guest', { networks: [{ name: 'nat' }, { name: 'more' }] })
  untouched(vm, added)
  const mac = added.status?.networks.find(({ name }) => name === 'more')?.mac
  await lab.until('the guest has it', async () => {
    return (await guestSays(vm, 'cat /sys/class/net/eth1/address')) === mac
  })
  untouched(vm, await change('guest', { networks: [{ name: 'nat' }] }))
  expect(await guestSays(vm, 'cd /sys/class/net; echo eth*')).toBe('eth0')
})

/** What a port of this host gives to who connects; undefined where nobody listens. */
function read(port: number): Promise<string | undefined> {
  return new Promise((done) => {
    let text = ''
    const socket = connect(port, '127.0.0.1')
    socket.setTimeout(5_000, () => socket.destroy())
    socket.on('data', (chunk) => {
      text += chunk
    })
    socket.on('error', () => done(undefined))
    socket.on('close', () => done(text))
  })
}

test('forwards of a user network come and go, and a taken port is told', { timeout }, async () => {
  const nat = (...hostPorts: number[]) => ({
    networks: [
      { name: 'nat', user: { forwards: hostPorts.map((hostPort) => ({ hostPort, guestPort: 80 })) } },
    ],
  })
  const vm = await guest()
  untouched(vm, await change('guest', nat()))
  await lab.type(uidOf(vm), 'while :; do echo hi | nc -l -p 80; done >/dev/null 2>&1 &')
  const port = await freePort()
  expect(await read(port)).toBeUndefined()
  untouched(vm, await change('guest', nat(port)))
  await lab.until('the guest answers through it', async () => (await read(port))?.trim() === 'hi')

  const holder = createServer().listen(0, '127.0.0.1')
  await once(holder, 'listening')
  const taken = (holder.address() as AddressInfo).port
  await lab.patch('guest', { spec: nat(taken) })
  const failed = await lab.sees('guest', 'tells of the port', (now) => {
    return conditionOf(now, 'Synchronized')?.reason === 'Failed'
  })
  expect(conditionOf(failed, 'Synchronized')?.message).toContain(`tcp:127.0.0.1:${taken}`)
  expect(failed.status?.phase).toBe('Running')
  expect(await read(port), 'the other is gone').toBeUndefined()
  holder.close()
  await once(holder, 'close')
  const synchronized = await lab.sees('guest', 'tries again', (now) => {
    return conditionOf(now, 'Synchronized')?.status === 'True'
  })
  untouched(vm, synchronized)
  await lab.until('the guest answers through it', async () => (await read(taken))?.trim() === 'hi')
})

test('a server that is killed at any moment of a change leads to the same end', { timeout }, async () => {
  const vm = await guest()
  for (const pause of [0, 30, 100]) {
    for (const disks of [[data, extra], [data]]) {
      const { metadata } = await lab.patch('guest', { spec: { disks } })
      await new Promise((done) => setTimeout(done, pause))
      await lab.restart()
      const after = await lab.sees('guest', 'is synchronized', (now) => {
        const condition = conditionOf(now, 'Synchronized')
        return condition?.status === 'True' && condition.observedGeneration === metadata.generation
      })
      untouched(vm, after)
      expect(runsWith(vm).disks).toHaveLength(disks.length)
      const names = disks.length === 2 ? 'vda vdb' : 'vda'
      await lab.until(
        'so does the guest',
        async () => (await guestSays(vm, 'cd /sys/block; echo vd*')) === names,
      )
    }
  }
})

test('a disk grows under the guest', { timeout }, async () => {
  const vm = await guest()
  expect(await guestSays(vm, 'cat /sys/block/vda/size')).toBe('32768')
  untouched(vm, await change('guest', { disks: [grown] }))
  await lab.until(
    'the guest sees it',
    async () => (await guestSays(vm, 'cat /sys/block/vda/size')) === '65536',
  )
  expect(runsWith(vm).disks[0]?.size).toBe('32Mi')

  await lab.sees('guest', 'says what the disk has', ({ status }) => status?.disks[0]?.size === '32Mi')
  await expect(lab.patch('guest', { spec: { disks: [data] } })).rejects.toMatchObject({
    message: expect.stringContaining('spec.disks[0].size'),
  })
  untouched(vm, await change('guest', { disks: [grown] }))
})

test('a disk comes and goes while the guest runs, and its file stays', { timeout }, async () => {
  const vm = await guest()
  const before = await guestSays(vm, 'cd /sys/block; echo vd*')
  expect(before).toBe('vda')
  const added = await change('guest', { disks: [grown, extra] })
  untouched(vm, added)
  await lab.until(
    'the guest has it',
    async () => (await guestSays(vm, 'cat /sys/block/vdb/size')) === '16384',
  )
  expect(await guestSays(vm, 'echo kept >/dev/vdb; head -c 4 /dev/vdb')).toBe('kept')
  const file = added.status?.disks.find(({ name }) => name === 'extra')?.path ?? ''
  expect(runsWith(vm).disks.map(({ name }) => name)).toEqual(['data', 'extra'])

  untouched(vm, await change('guest', { disks: [grown] }))
  expect(await guestSays(vm, 'cd /sys/block; echo vd*')).toBe('vda')
  expect(runsWith(vm).disks.map(({ name }) => name)).toEqual(['data'])
  expect(existsSync(file)).toBe(true)

  untouched(vm, await change('guest', { disks: [grown, extra] }))
  await lab.until('it is the same', async () => (await guestSays(vm, 'head -c 4 /dev/vdb')) === 'kept')

  // A q35's own bus gives nothing back: what was there at the start waits for the next one.
  const waits = await change('guest', { disks: [extra] })
  expect(conditionOf(waits, 'RestartRequired')).toMatchObject({
    status: 'True',
    message: 'spec.disks[data] takes effect at the next start',
  })
  await lab.verb('guest', 'restart')
  const again = await lab.sees('guest', 'was restarted', ({ status }) => {
    return status?.phase === 'Running' && status.restarts === 1
  })
  expect(conditionOf(again, 'RestartRequired')?.status).toBe('False')
  await lab.remove('guest')
  await lab.gone('guest')
  expect(existsSync(file)).toBe(false)
})

test('a pc gives back what it had at the start, and a SCSI controller takes more', { timeout }, async () => {
  const old = { name: 'old', size: '8Mi' }
  const scsi = (name: string) => ({ name, size: '8Mi', bus: 'scsi' })
  const vm = await boot('pc', { machine: 'pc', disks: [data, old, scsi('one')] })
  const disks = () => guestSays(vm, 'cd /sys/block; echo vd* sd*')
  expect(await disks()).toBe('vda vdb sda')
  untouched(vm, await change('pc', { disks: [data, scsi('one'), scsi('two')] }))
  await lab.until('the guest has those', async () => (await disks()) === 'vda sda sdb')
  untouched(vm, await change('pc', { disks: [data, scsi('two')] }))
  await lab.until('the guest has those', async () => (await disks()) === 'vda sdb')
  await lab.remove('pc')
})

test('the watchdog gets another action under the guest', { timeout }, async () => {
  const kernel = tinyKernel('plasmavmc.do=watchdog')
  const vm = await boot('dog', { disks: [data], kernel, devices: { watchdog: { action: 'none' } } })
  await lab.sees('dog', 'its watchdog fires in vain', ({ status }) => (status?.guest?.watchdogs ?? 0) > 0)
  untouched(vm, await change('dog', { devices: { watchdog: { action: 'pause' } } }))
  // The guest arms it anew as it boots.
  await lab.type(uidOf(vm), 'reboot -f')
  const held = await lab.sees('dog', 'is held', ({ status }) => status?.reason === 'Watchdog')
  expect(processOf(held).pid).toBe(processOf(vm).pid)
  await lab.remove('dog')
})

test('what needs a restart is named, until it is taken back or the restart is done', {
  timeout,
}, async () => {
  await lab.create(tiny('named', { memory: '32Mi' }))
  await lab.running('named')
  await lab.patch('named', { spec: { memory: '48Mi', cpu: { cores: 2 } } })
  const isRequired = (status: string) => (vm: VirtualMachine) =>
    conditionOf(vm, 'RestartRequired')?.status === status
  const required = await lab.sees('named', 'needs a restart', isRequired('True'))
  expect(conditionOf(required, 'RestartRequired')?.message).toBe(
    'spec.cpu.cores, spec.memory take effect at the next start',
  )
  expect(required.status?.phase).toBe('Running')
  await lab.patch('named', { spec: { memory: '32768Ki', cpu: { cores: 1 } } })
  await lab.sees('named', 'needs none', isRequired('False'))
  await lab.patch('named', { spec: { memory: '48Mi' } })
  await lab.sees('named', 'needs one again', isRequired('True'))
  await lab.verb('named', 'restart')
  const after = await lab.sees('named', 'was restarted', isRequired('False'))
  await lab.running('named')
  expect(after.status?.restarts).toBe(1)
  await lab.remove('named')
})

test('a machine that would not start again is not restarted, and is once it would', { timeout }, async () => {
  await lab.create(tiny('sound', { disks: [data] }))
  const vm = await lab.running('sound')
  await lab.patch('sound', { spec: { disks: [data, { name: 'bad', image: { source: 'none.img' } }] } })
  await lab.sees('sound', 'has a disk that failed', (now) => {
    return conditionOf(now, 'DisksReady')?.reason === 'DiskFailed'
  })
  const restart = await lab.cli('restart', 'sound')
  expect(restart).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      /would not start again: condition DisksReady is False, DiskFailed: bad: .*none\.img/,
    ),
  })
  const after = await lab.vm('sound')
  expect(after.status).toMatchObject({ phase: 'Running', process: { pid: processOf(vm).pid } })
  await lab.patch('sound', { spec: { disks: [data] } })
  await lab.until('it is restarted', async () => (await lab.cli('restart', 'sound')).code === 0)
  await lab.sees(
    'sound',
    'was restarted',
    ({ status }) => status?.phase === 'Running' && status.restarts === 1,
  )
  await lab.remove('sound')
})

test('a microvm can’t be plugged into: a new disk waits for the next start', { timeout }, async () => {
  await lab.create(tiny('micro', { machine: 'microvm', disks: [data] }))
  await lab.running('micro')
  await lab.patch('micro', { spec: { disks: [data, extra] } })
  const waits = await lab.sees('micro', 'needs a restart', (vm) => {
    return conditionOf(vm, 'RestartRequired')?.status === 'True'
  })
  expect(conditionOf(waits, 'RestartRequired')?.message).toContain('spec.disks[extra]')
  expect(conditionOf(waits, 'Ready')?.status).toBe('True')
  await lab.remove('micro')
})

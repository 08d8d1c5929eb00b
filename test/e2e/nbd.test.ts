import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { blankFile, NbdServer } from '../host/nbd-server.ts'
import { Lab, linux, processOf, tiny, uidOf } from './lab.ts'

const bytes = 16 << 20
let lab: Lab
let port: number
let file: string
let server: NbdServer | undefined

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
  port = await freePort()
  file = blankFile(join(lab.dir, 'x.raw'), bytes)
})
afterAll(async () => {
  await lab.close()
  await server?.kill()
})

const timeout = 300_000
const data = (host: string, exportName: string) => ({
  ...{ name: 'data', format: 'raw', nbd: { host, port, exportName } },
})
const conditionOf = ({ status }: VirtualMachine, type: string) =>
  status?.conditions.find((c) => c.type === type)

/** The one server of the test, which takes one client at a time: what asks must not be in the way of what runs. */
async function serve(exportName: string): Promise<void> {
  await server?.kill()
  server = new NbdServer({ file, exportName, port, shared: 1 })
  server.start()
}

let asked = 0

/** What the guest answers to a line of shell. */
async function guestSays(vm: VirtualMachine, line: string): Promise<string> {
  const mark = `m${asked++}`
  await lab.type(uidOf(vm), `echo "${mark}"="$(${line})"=end`)
  const answer = new RegExp(`^${mark}=([^]*?)=end`, 'm')
  await lab.until(`the guest answers ${line}`, () => answer.test(lab.console(uidOf(vm))))
  return answer.exec(lab.console(uidOf(vm)))?.[1]?.trim() ?? ''
}

/** Starts writing to the disk in the guest, and says so on its console when that is done. */
const write = (vm: VirtualMachine, word: string) =>
  lab.type(uidOf(vm), `(echo ${word} >/mnt/${word} && sync && echo "$(echo ${word} | rev)") &`)
const written = (vm: VirtualMachine, word: string) =>
  lab.until(`${word} is written`, () => lab.console(uidOf(vm)).includes([...word].reverse().join('')))

test('a wrong export is told by its field, and the machine starts once it is there', {
  timeout,
}, async () => {
  await serve('other')
  await lab.create(linux('far', { disks: [data('127.0.0.1', 'x')] }))
  const failed = await lab.sees('far', 'tells of the export', (vm) =>
    Boolean(conditionOf(vm, 'DisksReady')?.message?.includes('no such export')),
  )
  expect(conditionOf(failed, 'DisksReady')).toMatchObject({ status: 'False', reason: 'DiskFailed' })
  expect(conditionOf(failed, 'DisksReady')?.message).toMatch(
    /data: spec\.disks\[0\]\.nbd\.exportName: nbd:\/\/127\.0\.0\.1:\d+\/x can't be used: it has no such export.*it is tried again$/,
  )
  expect(failed.status?.phase).toBe('Pending')
  await serve('x')
  const vm = await lab.running('far')
  await lab.booted(uidOf(vm), 1)
  expect(vm.status).toMatchObject({ restarts: 0, exports: [`127.0.0.1:${port}/x`] })
  expect((await lab.cli('describe', 'vm', 'far')).stdout).toMatch(
    /data .*Ready .*nbd:\/\/127\.0\.0\.1:\d+\/x/,
  )
})

test('a second machine on the export waits, also while the first is declared to have another', {
  timeout,
}, async () => {
  const first = await lab.vm('far')
  const second = await lab.create(tiny('second', { disks: [data('LocalHost', 'x')] }))
  const refused = ({ status, metadata }: VirtualMachine) =>
    status?.reason === 'DiskInUse' && status.observedGeneration === metadata.generation
  const waits = await lab.sees('second', 'is refused', refused)
  expect(waits.status?.message).toBe(
    `spec.disks[0].nbd: 127.0.0.1:${port}/x is a writable disk of default/far too`,
  )
  await lab.patch('far', { spec: { disks: [data('127.0.0.1', 'elsewhere')] } })
  await lab.sees('far', 'needs a restart', (vm) => conditionOf(vm, 'RestartRequired')?.status === 'True')
  const { metadata } = await lab.patch('second', { spec: { priority: 1 } })
  const still = await lab.sees(
    'second',
    'is refused',
    (vm) => refused(vm) && vm.metadata.generation === metadata.generation,
  )
  expect(still.status).not.toHaveProperty('process')
  expect(lab.qemus(uidOf(second))).toEqual([])
  await lab.patch('far', { spec: { disks: [data('127.0.0.1', 'x')] } })
  const back = await lab.sees(
    'far',
    'needs none',
    (vm) => conditionOf(vm, 'RestartRequired')?.status === 'False',
  )
  expect(processOf(back)).toEqual(processOf(first))
})

test('the guest goes on when its server comes back, soon or late', { timeout }, async () => {
  const vm = await lab.vm('far')
  await write(vm, 'early')
  await written(vm, 'early')

  await server?.kill()
  await write(vm, 'soon')
  await serve('x')
  await written(vm, 'soon')

  await server?.kill()
  await write(vm, 'late')
  const held = await lab.sees('far', 'is held', ({ status }) => status?.reason === 'IOError')
  expect(held.status).toMatchObject({ phase: 'Paused' })
  expect(held.status?.message).toContain('disk data')
  await serve('x')
  const after = await lab.running('far')
  await written(vm, 'late')
  expect(processOf(after)).toEqual(processOf(vm))
  expect(await guestSays(vm, 'cat /mnt/early /mnt/soon /mnt/late | tr -d "\\r\\n"')).toBe('earlysoonlate')
})

test('once the first is gone the second has the export, with what was written', { timeout }, async () => {
  await lab.remove('far')
  await lab.gone('far')
  const second = await lab.running('second')
  expect(second.status?.exports).toEqual([`127.0.0.1:${port}/x`])
  const content = readFileSync(file, 'latin1')
  expect(content.length).toBe(bytes)
  for (const word of ['early', 'soon', 'late']) expect(content).toContain(`${word}\n`)
})

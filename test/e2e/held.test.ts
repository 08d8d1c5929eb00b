import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Lab, processOf, tiny, uidOf } from './lab.ts'

let lab: Lab
beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

test('a machine that is paused when its store is lost stays so as it is adopted, until it is unpaused', async () => {
  await lab.create(tiny('held'))
  const uid = uidOf(await lab.running('held'))
  const { pid } = processOf(await lab.vm('held'))
  await lab.verb('held', 'pause')
  await lab.sees('held', 'is Paused', (vm) => vm.status?.phase === 'Paused')
  await lab.end()
  rmSync(join(lab.dataDir, 'store'), { recursive: true })
  await lab.serve()
  expect(await lab.cli('adopt', uid)).toMatchObject({ code: 0 })
  const adopted = await lab.sees('held', 'is taken over', (vm) => vm.status?.process !== undefined)
  expect(adopted.status).toMatchObject({ phase: 'Paused', reason: 'PausedByUser', process: { pid } })
  await lab.told('held', 'Adopted', 1)
  expect(await lab.eventsOf('held', 'Running')).toEqual([])
  await lab.verb('held', 'unpause')
  expect(processOf(await lab.running('held')).pid).toBe(pid)
})

test('a machine whose image was replaced is not restarted, and not started, until the first is back', async () => {
  const images = join(lab.dataDir, 'images')
  const image = join(images, 'base.qcow2')
  const make = (size: string) => execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, size])
  mkdirSync(images, { recursive: true })
  make('4M')
  await lab.create(tiny('over', { disks: [{ name: 'root', image: { source: 'base.qcow2' } }] }))
  const vm = await lab.running('over')
  const { pid } = processOf(vm)
  execFileSync('mv', [image, `${image}.first`])
  make('8M')
  await lab.verb('over', 'pause')
  await lab.sees('over', 'tells of its disk', ({ status }) =>
    Boolean(status?.conditions.some(({ reason }) => reason === 'DiskFailed')),
  )
  expect((await lab.cli('restart', 'over')).stderr).toContain('was changed since')
  expect(processOf(await lab.vm('over')).pid).toBe(pid)
  process.kill(pid, 'SIGKILL')
  await lab.sees('over', 'waits for its disk', ({ status }) => status?.reason === 'DiskFailed')
  expect(lab.qemus(uidOf(vm))).toEqual([])
  execFileSync('mv', [`${image}.first`, image])
  await lab.running('over')
})

test('a stop that may take a day ends as soon as its grace period is made shorter', async () => {
  await lab.create(tiny('slow', { terminationGracePeriodSeconds: 86_400 }))
  await lab.running('slow')
  await lab.remove('slow')
  await lab.sees('slow', 'is powering down', ({ status }) => status?.stop?.graceSeconds === 86_400)
  await lab.patch('slow', { spec: { terminationGracePeriodSeconds: 0 } })
  await lab.gone('slow')
})

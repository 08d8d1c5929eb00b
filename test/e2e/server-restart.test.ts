import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Lab, linux, processOf, program, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let lab: Lab
let web: string
let small: string

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
  web = uidOf(await lab.create(linux('web')))
  small = uidOf(await lab.create(tiny('small')))
  await lab.booted(web, 1)
  await lab.running('small')
})
afterAll(() => lab.close())

/** The guest answers on its console and has not booted again. */
async function guestRunsOn(word: string): Promise<void> {
  await lab.type(web, `echo heard-$((40 + 2))-${word}`)
  await lab.until('the guest answers', () => lab.console(web).includes(`heard-42-${word}`))
  expect(lab.boots(web)).toBe(1)
  expect(lab.console(web)).toContain('boot count: 1')
}

async function processes() {
  const vms = await Promise.all(['web', 'small'].map((name) => lab.running(name)))
  return vms.map(processOf)
}

describe.each(['SIGKILL', 'SIGTERM'] as const)('a server ended by %s', (signal) => {
  test('leaves every guest alone, and the next one takes them over', async () => {
    const before = await processes()
    await lab.end(signal)
    expect(before.map(({ pid }) => startTimeOf(pid))).toEqual(before.map(({ startTime }) => startTime))
    await guestRunsOn(`down-${signal}`)
    await lab.serve()
    const after = await processes()
    expect(after).toEqual(before)
    expect(after.map(({ pid }) => startTimeOf(pid))).toEqual(before.map(({ startTime }) => startTime))
    expect(
      lab
        .qemus()
        .map(({ pid }) => pid)
        .toSorted(),
    ).toEqual(before.map(({ pid }) => pid).toSorted())
    expect((await lab.vm('web')).status).toMatchObject({ restarts: 0, phase: 'Running' })
    await guestRunsOn(`up-${signal}`)
  })

  test('has a session with the machine again: it can be paused', async () => {
    await lab.verb('small', 'pause')
    await lab.sees('small', 'is Paused', (vm) => vm.status?.phase === 'Paused')
    await lab.verb('small', 'unpause')
    await lab.running('small')
  })
})

test('the console goes to the guest and back, and Ctrl-] leaves it', async () => {
  // script(1) gives it a terminal: in a pipe, Ctrl-] is a byte like any other.
  const console = lab.spawn('script', ['-qec', `${program} console web`, '/dev/null'])
  let said = ''
  console.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString('latin1')
  })
  const closed = once(console, 'close')
  await lab.until('it is connected', () => said.includes('Connected to web'))
  console.stdin?.write('\necho console-$((40 + 2))\n')
  await lab.until('the guest answers', () => said.includes('console-42'))
  console.stdin?.write('\x1d')
  const [code] = await closed
  expect(code).toBe(0)
  expect(said).toContain('Left web; it runs on.')
  await guestRunsOn('console')
})

describe('a wiped store', () => {
  let before: Awaited<ReturnType<typeof processes>>

  beforeAll(async () => {
    before = await processes()
    await lab.end()
    rmSync(join(lab.dataDir, 'store'), { recursive: true })
    rmSync(lab.paths(small).launch)
    await lab.serve()
  })

  test('leaves orphans, which are listed and not touched', async () => {
    await lab.until('both are listed', async () => {
      const { stdout } = await lab.cli('orphans', '-o', 'json')
      return JSON.parse(stdout).items.length === 2
    })
    const { stdout } = await lab.cli('orphans')
    expect(stdout).toMatch(/^UID +HOST +PID +NAME +LAUNCHED +ADOPTABLE$/m)
    expect(stdout).toMatch(new RegExp(`^${web} +lab +${before[0]?.pid} +default/web .* yes`, 'm'))
    expect(stdout).toMatch(
      new RegExp(`^${small} +lab +${before[1]?.pid} +default/small .* no: no launch record`, 'm'),
    )
    const { items } = JSON.parse((await lab.cli('orphans', '-o', 'json')).stdout)
    expect(items).toContainEqual(
      expect.objectContaining({ uid: web, pid: before[0]?.pid, name: 'default/web', host: 'lab' }),
    )
    expect((await lab.cli('orphans', '-o', 'name')).stdout.split('\n')).toContain(web)
    expect((await lab.cli('get', 'vms')).stderr).toContain('No resources found')
    expect(
      lab
        .qemus()
        .map(({ pid }) => pid)
        .toSorted(),
    ).toEqual(before.map(({ pid }) => pid).toSorted())
    await guestRunsOn('orphan')
  })

  test('heals by adopt: same uid, same process, same spec', async () => {
    const adopted = await lab.cli('adopt', web.slice(0, 13))
    expect(adopted).toMatchObject({ code: 0, stderr: '' })
    expect(adopted.stdout).toContain(
      `virtualmachine.plasmavmc.io/web adopted (QEMU ${before[0]?.pid} on lab)`,
    )
    const vm = await lab.running('web')
    expect(vm.metadata.uid).toBe(web)
    expect(vm.spec).toMatchObject({ memory: '192Mi', disks: [{ name: 'data', size: '16Mi', format: 'raw' }] })
    const { pid, startTime, launchId, startedAt, specHash } = processOf(vm)
    const was = before[0]
    expect({ pid, startTime, launchId, startedAt, specHash }).toEqual({
      ...{ pid: was?.pid, startTime: was?.startTime, launchId: was?.launchId },
      ...{ startedAt: was?.startedAt, specHash: was?.specHash },
    })
    expect(vm.status?.conditions?.find(({ type }) => type === 'RestartRequired')?.status).toBe('False')
    await lab.until('the event says so', async () => (await lab.cli('events')).stdout.includes('Adopted'))
    await guestRunsOn('adopted')
  })

  test('says so when one is adopted again, unknown, or without a launch record', async () => {
    expect(await lab.cli('adopt', web)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/no orphan has the uid|already exists/),
    })
    await lab.until('it is no orphan any more', async () => {
      const { stdout } = await lab.cli('orphans', '-o', 'name')
      return stdout === `${small}\n`
    })
    expect((await lab.cli('adopt', web)).stderr).toContain(`no orphan has the uid ${web}`)
    const unknown = await lab.cli('adopt', '00000000-0000-4000-8000-000000000000', '-o', 'json')
    expect(unknown.code).toBe(1)
    expect(JSON.parse(unknown.stderr)).toMatchObject({ kind: 'Status', reason: 'NotFound' })
    const lost = await lab.cli('adopt', small)
    expect(lost.code).toBe(1)
    expect(lost.stderr).toMatch(/QEMU \d+ left no launch record to take its spec from/)
    expect(startTimeOf(before[1]?.pid ?? 0)).toBe(before[1]?.startTime)
  })
})

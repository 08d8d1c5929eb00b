import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Lab, processOf, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

const mark = ['-fw_cfg', 'name=opt/io.plasmavmc/identity,string=by-hand/0']

/** A QEMU that somebody started by hand. */
async function byHand(uid: string, pidfile: string, more: readonly string[] = []) {
  const identity = ['-name', 'guest=default/by-hand', '-uuid', uid, '-pidfile', pidfile, ...more]
  const small = ['-machine', 'pc', '-m', '16', '-nodefaults', '-display', 'none', '-S']
  const child = lab.spawn('qemu-system-x86_64', [...identity, ...small])
  const pid = child.pid ?? 0
  await lab.until('it runs', () => lab.qemus(uid).some((qemu) => qemu.pid === pid))
  return { pid, startTime: startTimeOf(pid) }
}

async function warnings(): Promise<string> {
  return (await lab.cli('events')).stdout
}

test.each(['while no server ran', 'while the server ran'])(
  'a second QEMU of a machine, started %s: neither is touched until one is left',
  async (when) => {
    const name = when === 'while no server ran' ? 'down' : 'up'
    await lab.create(tiny(name))
    const vm = await lab.running(name)
    const [uid, before] = [uidOf(vm), processOf(vm)]
    const pidfile = join(lab.dir, `${name}.pid`)
    if (name === 'down') await lab.end()
    const second = await byHand(uid, pidfile, mark)
    if (name === 'down') await lab.serve()

    const seen = await lab.sees(name, 'is Unknown', ({ status }) => status?.reason === 'DuplicateProcess')
    expect(seen.status?.phase).toBe('Unknown')
    expect(seen.status?.message).toContain(String(before.pid))
    expect(seen.status?.message).toContain(String(second.pid))
    await lab.until('the event says so', async () =>
      new RegExp(`Warning +DuplicateProcess +virtualmachine/${name}`).test(await warnings()),
    )
    // Nothing that is asked for now may touch either.
    await lab.verb(name, 'restart')
    await lab.verb(name, 'pause').catch(() => {})
    expect(startTimeOf(before.pid)).toBe(before.startTime)
    expect(startTimeOf(second.pid)).toBe(second.startTime)
    lab.guard()
    expect(lab.seenTwice.splice(0).length).toBeGreaterThan(0)

    process.kill(second.pid, 'SIGKILL')
    const after = await lab.sees(name, 'was restarted, as asked meanwhile', ({ status }) => {
      return status?.phase === 'Running' && status.process?.launchId !== before.launchId
    })
    expect(lab.qemus(uid).map(({ pid }) => pid)).toEqual([processOf(after).pid])
  },
)

test('QEMUs that are not ours are neither listed nor touched', async () => {
  const strangers = join(lab.dir, 'strangers')
  const [plain, other] = [randomUUID(), randomUUID()]
  mkdirSync(join(strangers, 'vms', other), { recursive: true })
  const foreign = [
    await byHand(plain, join(lab.dir, 'plain.pid')),
    // Another server's, by its run directory.
    await byHand(other, join(strangers, 'vms', other, 'qemu.pid'), mark),
  ]
  const ours = uidOf(await lab.create(tiny('ours')))
  await lab.running('ours')
  await lab.restart()
  await lab.until('the host has been looked at', async () => {
    const host = JSON.parse((await lab.cli('get', 'host', 'lab', '-o', 'json')).stdout)
    return host.status?.conditions?.[0]?.status === 'True'
  })
  expect((await lab.cli('orphans')).stderr).toContain('No orphans')
  await lab.cli('delete', 'vm', 'ours')
  expect(lab.qemus(ours)).toEqual([])
  expect(await lab.cli('adopt', plain)).toMatchObject({ code: 1 })
  for (const { pid, startTime } of foreign) expect(startTimeOf(pid)).toBe(startTime)
})

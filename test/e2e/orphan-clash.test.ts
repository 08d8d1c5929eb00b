import { rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { Lab, processOf, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let lab: Lab
let disk: string

beforeAll(async () => {
  lab = await Lab.start()
  disk = join(lab.dir, 'shared.raw')
  writeFileSync(disk, 'precious')
  truncateSync(disk, 1 << 20)
})
afterAll(() => lab.close())

test('a machine declared anew while its orphan lives can have neither its disk nor its port, and says why', async () => {
  const hostPort = await freePort()
  const manifests = {
    disk: tiny('disk', { disks: [{ name: 'data', path: disk, format: 'raw' }] }),
    port: tiny('port', { networks: [{ name: 'net', user: { forwards: [{ hostPort, guestPort: 22 }] } }] }),
  }
  const reasons = {
    disk: new RegExp(`write.? lock|another process using the image.*${disk}`, 'i'),
    port: new RegExp(`spec.networks\\[0\\].user.forwards\\[0\\].hostPort: tcp port ${hostPort} .*is in use`),
  }
  const names = ['disk', 'port'] as const
  for (const name of names) await lab.create(manifests[name])
  const orphans = []
  for (const name of names) orphans.push(await lab.running(name))
  await lab.end()
  rmSync(join(lab.dataDir, 'store'), { recursive: true })
  await lab.serve()

  const clash = async (name: (typeof names)[number], orphan: VirtualMachine) => {
    const uid = uidOf(await lab.create(manifests[name]))
    expect(uid).not.toBe(uidOf(orphan))
    const refused = await lab.sees(name, 'waits', ({ status }) => status?.phase === 'CrashLoopBackOff')
    expect(refused.status?.lastExit?.message).toMatch(reasons[name])
    expect(refused.status?.message).toMatch(reasons[name])
    expect(lab.qemus(uid)).toEqual([])
    const { pid, startTime } = processOf(orphan)
    expect(startTimeOf(pid)).toBe(startTime)
    expect((await lab.cli('orphans', '-o', 'name')).stdout).toContain(uidOf(orphan))

    process.kill(pid, 'SIGKILL')
    await lab.running(name)
    expect(lab.qemus(uid)).toHaveLength(1)
  }
  await Promise.all(orphans.map((orphan, i) => clash(names[i] ?? 'disk', orphan)))
})

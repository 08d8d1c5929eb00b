import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { makeNew } from '../../src/host/durable-files.ts'
import type { Pool } from '../../src/host/pools.ts'
import type { DiskState } from '../../src/host/ports.ts'
import type { VirtualMachine, VmStatus } from '../../src/resources/vm.ts'
import { machine, prepared, uid, workshop } from './disk-fixture.ts'

/** Two hosts with data directories of their own and a pool that both see. */
let one: ReturnType<typeof workshop>
let two: ReturnType<typeof workshop>
let pool: string
beforeEach(() => {
  one = workshop({ pools: () => pools })
  two = workshop({ pools: () => pools })
  pool = join(one.dir, 'pool')
  const pools: Pool[] = [{ name: 'shared', path: pool, shared: true }]
})
afterEach(() => Promise.all([one.end(), two.end()]))

const vm = (more: Record<string, unknown> = {}, disk: Record<string, unknown> = {}) =>
  machine({ disks: [{ name: 'root', size: '4Mi', pool: 'shared', ...disk }], ...more })
const path = () => join(pool, uid, 'root.qcow2')
const madeOn = ({ dataDir }: typeof one) => existsSync(join(dataDir, 'made', `${uid}.json`))

/** The machine with what an agent records of its disks. */
function recordedAs(of: VirtualMachine, disks: readonly DiskState[]): VirtualMachine {
  const words = { absent: 'Pending', preparing: 'Preparing', ready: 'Ready', failed: 'Failed' } as const
  const status: VmStatus = {
    ...{ restarts: 0, networks: [], conditions: [] },
    disks: disks.map(({ state, ...disk }) => ({ ...disk, state: words[state] })),
  }
  return { ...of, status }
}

describe('a machine that comes from another host', () => {
  test('finds its disk as it was: it is ready, and not made anew', async () => {
    await prepared(one.disks, vm())
    writeFileSync(join(pool, uid, 'mark'), '')
    const before = statSync(path())
    expect(await two.disks.observe(vm())).toEqual([
      { name: 'root', path: path(), state: 'ready', size: '4Mi' },
    ])
    await prepared(two.disks, vm())
    expect(statSync(path())).toMatchObject({ ino: before.ino, size: before.size, mtimeMs: before.mtimeMs })
  })

  test('does not get an empty disk where the pool is not mounted, nor later: its status remembers', async () => {
    let known = recordedAs(vm(), await prepared(one.disks, vm()))
    const away = `${pool}-away`
    renameSync(pool, away)
    mkdirSync(pool)
    // Over several passes, each of which records what it saw.
    for (let pass = 0; pass < 3; pass += 1) {
      const seen = await prepared(two.disks, known)
      expect(seen[0]).toMatchObject({ state: 'failed', path: path() })
      expect(seen[0]?.message).toContain('is not there: mount its file system')
      known = recordedAs(vm(), seen)
    }
    expect(existsSync(path())).toBe(false)
    rmSync(pool, { recursive: true })
    renameSync(away, pool)
    expect((await two.disks.observe(known))[0]?.state).toBe('ready')
  })

  test('is remembered too while its pool is declared no more, or its disk can’t be read', async () => {
    const known = recordedAs(vm(), await prepared(one.disks, vm()))
    const elsewhere = workshop()
    const [gone] = await elsewhere.disks.observe(known)
    await elsewhere.end()
    expect(gone).toMatchObject({ state: 'failed', path: path() })
    writeFileSync(path(), 'no image')
    expect((await two.disks.observe(known))[0]).toMatchObject({ state: 'failed', path: path() })
  })

  test('a path that status tells of a file that was given is no memory', async () => {
    const known = recordedAs(vm(), [{ name: 'root', state: 'ready', path: '/srv/root.qcow2' }])
    expect((await two.disks.observe(known))[0]?.state).toBe('absent')
  })

  test('gets its seed made, and goes on with its UEFI variables', async () => {
    const spec = { firmware: 'uefi', cloudInit: { userData: '#cloud-config\n' } }
    const [first, second] = [vm(spec), vm(spec)]
    await prepared(one.disks, first)
    const variables = join(pool, uid, 'efi-vars.fd')
    writeFileSync(variables, 'boot entries')
    const seen = await prepared(two.disks, second)
    expect(seen.map(({ name, state }) => `${name} ${state}`)).toEqual([
      'root ready',
      'cloud-init ready',
      'efi-vars ready',
    ])
    expect(seen.find(({ name }) => name === 'efi-vars')?.path).toBe(variables)
    expect(readFileSync(variables, 'utf8')).toBe('boot entries')
    expect(existsSync(join(two.own, 'cloud-init.iso'))).toBe(true)
  })

  test('takes along the UEFI variables that it had before its pool was shared', async () => {
    mkdirSync(one.own, { recursive: true })
    writeFileSync(join(one.own, 'efi-vars.fd'), 'boot entries')
    await prepared(one.disks, vm({ firmware: 'uefi' }))
    expect(readFileSync(join(pool, uid, 'efi-vars.fd'), 'utf8')).toBe('boot entries')
  })
})

describe('a machine that goes to another host', () => {
  test('leaves nothing behind but its disks', async () => {
    const of = vm({ firmware: 'uefi', cloudInit: { userData: '#cloud-config\n' } })
    await prepared(one.disks, of)
    await one.disks.letGo(uid)
    expect(existsSync(one.own)).toBe(false)
    expect(madeOn(one)).toBe(false)
    expect(existsSync(path())).toBe(true)
    expect(existsSync(join(pool, uid, 'efi-vars.fd'))).toBe(true)
    // And twice, as after a crash in between.
    await one.disks.letGo(uid)
  })

  test('leaves the disks that only this host has, and what is known of them', async () => {
    const of = machine({
      disks: [
        { name: 'root', size: '4Mi', pool: 'shared' },
        { name: 'data', size: '4Mi' },
      ],
    })
    await prepared(one.disks, of)
    await one.disks.letGo(uid)
    expect(existsSync(join(one.own, 'data.qcow2'))).toBe(true)
    const record = JSON.parse(readFileSync(join(one.dataDir, 'made', `${uid}.json`), 'utf8'))
    expect(Object.keys(record.disks)).toEqual(['data'])
  })

  test('is not prepared any further', async () => {
    one.disks.prepare(vm())
    await one.disks.letGo(uid)
    await two.disks.letGo(uid)
    expect((await prepared(two.disks, vm()))[0]?.state).toBe('ready')
  })
})

test('two hosts that make one disk at once: the first stays, with what was written to it since', async () => {
  mkdirSync(pool)
  const file = join(pool, 'root.raw')
  const inside = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  const slow = makeNew(file, async (part) => {
    writeFileSync(part, 'empty')
    inside.resolve()
    await goOn.promise
  })
  await inside.promise
  await makeNew(file, async (part) => writeFileSync(part, 'empty'))
  writeFileSync(file, 'what a guest wrote')
  goOn.resolve()
  await slow
  expect(readFileSync(file, 'utf8')).toBe('what a guest wrote')

  expect(readdirSync(pool)).toEqual(['root.raw'])
})

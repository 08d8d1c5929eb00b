import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import type { DiskState } from '../../src/host/ports.ts'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import type { VirtualMachine, VmStatus } from '../../src/resources/vm.ts'
import { machine, prepared, uid, until, workshop } from './disk-fixture.ts'
import { blankFile, NbdServer } from './nbd-server.ts'

let shop: ReturnType<typeof workshop>
let port: number
let server: NbdServer | undefined
/** How much later than it is the disks take it to be, ms. */
let later = 0

beforeEach(async () => {
  later = 0
  const clock: Clock = { ...systemClock, elapsed: () => systemClock.elapsed() + later }
  shop = workshop({ clock })
  port = await freePort()
})
afterEach(async () => {
  await server?.kill()
  server = undefined
  await shop.end()
})

function serve(more: { readOnly?: boolean; exportName?: string } = {}): void {
  const file = blankFile(join(shop.dir, 'x.raw'), 1 << 20)
  server = new NbdServer({ file, exportName: 'x', port, ...more })
  server.start()
}

const vm = (more: object = {}) =>
  machine({
    disks: [{ name: 'root', format: 'raw', nbd: { host: '127.0.0.1', port, exportName: 'x' }, ...more }],
  })

/** Prepares until it is so: a server that was only just started may not listen yet. */
async function seen(
  of: VirtualMachine,
  wanted: (disk: DiskState | undefined) => boolean,
): Promise<DiskState> {
  for (const end = performance.now() + 20_000; ; ) {
    const [disk] = await prepared(shop.disks, of)
    if (disk && wanted(disk)) return disk
    if (performance.now() > end) throw new Error(JSON.stringify(disk))
  }
}

const path = () => `nbd://127.0.0.1:${port}/x`

test('an export is there once its server says so, and is asked for again before a later start', async () => {
  expect(await shop.disks.observe(vm())).toEqual([{ name: 'root', state: 'absent' }])
  serve()
  expect(await seen(vm(), (disk) => disk?.state === 'ready')).toEqual({
    ...{ name: 'root', path: path(), state: 'ready' },
  })
  later = 11_000
  expect(await shop.disks.observe(vm())).toEqual([
    { name: 'root', path: path(), state: 'ready', stale: true },
  ])
  await prepared(shop.disks, vm())
  await until(shop.disks, vm(), ([disk]) => disk?.state === 'ready' && !disk.stale)
  later = 22_000
  await server?.kill()
  shop.disks.prepare(vm())
  const [gone] = await until(shop.disks, vm(), ([disk]) => disk?.state === 'failed')
  expect(gone?.message).toMatch(/^spec\.disks\[0\]\.nbd: .* nothing listens there .*it is tried again$/)
})

test('the answer for one export says nothing of another, nor of another use', async () => {
  serve({ readOnly: true })
  await seen(vm({ readOnly: true }), (disk) => disk?.state === 'ready')
  const absent = [{ name: 'root', state: 'absent' }]
  expect(await shop.disks.observe(vm())).toEqual(absent)
  const other = { readOnly: true, nbd: { host: '127.0.0.1', port, exportName: 'y' } }
  expect(await shop.disks.observe(vm(other))).toEqual(absent)
  const failed = await seen(vm(), (disk) => disk?.state === 'failed')
  expect(failed.message).toMatch(
    /^spec\.disks\[0\]\.nbd: nbd:.*\/x is read-only, and the disk is not; serve it/,
  )
})

test('a wrong name fails by its field, and the export that comes is found', async () => {
  serve({ exportName: 'other' })
  const failed = await seen(vm(), (disk) => disk?.message?.includes('no such export') === true)
  expect(failed.message).toMatch(/^spec\.disks\[0\]\.nbd\.exportName: /)
  await server?.kill()
  serve()
  await seen(vm(), (disk) => disk?.state === 'ready')
})

test('nothing is made, noted or removed for it, and what it was called is no memory of a disk that was made', async () => {
  serve()
  await seen(vm(), (disk) => disk?.state === 'ready')
  const told: VmStatus = {
    ...{ restarts: 0, networks: [], conditions: [] },
    disks: [{ name: 'root', state: 'Ready', path: `nbd://nas:10809/${uid}/root` }],
  }
  const blank = { ...machine({ disks: [{ name: 'root', size: '1Mi' }] }), status: told }
  expect(await shop.disks.observe(blank)).toEqual([{ name: 'root', state: 'absent' }])
  await shop.disks.remove(vm())
  expect(await shop.disks.observe(vm())).toEqual([{ name: 'root', state: 'absent' }])
})

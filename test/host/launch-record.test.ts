import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { manifestOf, readLaunchRecord, writeLaunchRecord } from '../../src/host/launch-record.ts'
import { vmPaths } from '../../src/host/paths.ts'
import type { LaunchRecord } from '../../src/host/ports.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import { specHash } from '../../src/host/spec-hash.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { machine, uid } from './machines.ts'

let root: string
let processes: HostProcesses

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'record-'))
  mkdirSync(vmPaths(root, uid).dir, { recursive: true })
  processes = new HostProcesses({
    ...{ runDir: root, hostName: 'h', accelerator: 'tcg', clock: systemClock, log: silentLog },
  })
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const vm = machine({ disks: [{ name: 'root', size: '1Gi' }] })
const none = { adding: [], leaving: [] }
const file = () => vmPaths(root, uid).launch

const record: LaunchRecord = {
  ...{ version: 1, launchId: 'l-1', epoch: 0, hostName: 'h', bootId: 'b', at: '2026-01-01T00:00:00Z' },
  ...{ accelerator: 'tcg', qemuVersion: '7.2.0', specHash: specHash(vm.spec), argv: ['qemu'] },
  manifest: manifestOf(vm),
}

test('a record is read back as it was written', async () => {
  await writeLaunchRecord(file(), record)
  expect(await readLaunchRecord(file())).toEqual(record)
})

test('a spec that was applied while it runs is noted; the rest of the record stays', async () => {
  await writeLaunchRecord(file(), record)
  const spec = { ...vm.spec, memory: '1Gi' }
  const changed = { ...record, specHash: specHash(spec), manifest: { ...record.manifest, spec } }
  const pending = { adding: ['disk-a'], leaving: ['nic-b'] }
  expect(await processes.noteSpec(uid, 'l-1', { spec, pending })).toEqual({ ...changed, pending })
  expect(await processes.launchRecord(uid)).toEqual({ ...changed, pending })
  expect(await processes.noteSpec(uid, 'l-1', { spec, pending: none })).toEqual(changed)
  expect(await processes.launchRecord(uid)).toEqual(changed)
  expect(readdirSync(vmPaths(root, uid).dir)).toEqual(['launch.json'])
})

test('the record of another launch, or none, is left as it is', async () => {
  expect(await processes.noteSpec(uid, 'l-1', { spec: vm.spec, pending: none })).toBeUndefined()
  expect(readdirSync(vmPaths(root, uid).dir)).toEqual([])
  await writeLaunchRecord(file(), record)
  const before = readFileSync(file(), 'utf8')
  expect(
    await processes.noteSpec(uid, 'l-0', { spec: { ...vm.spec, memory: '1Gi' }, pending: none }),
  ).toBeUndefined()
  expect(readFileSync(file(), 'utf8')).toBe(before)
})

test('members that are newer than the record have their defaults', async () => {
  const { firmware: _none, ...older } = vm.spec
  const old = { ...record, manifest: { ...record.manifest, spec: older } }
  writeFileSync(file(), JSON.stringify(old))
  expect((await readLaunchRecord(file()))?.manifest.spec).toEqual(vm.spec)
})

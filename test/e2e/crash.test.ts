import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Lab, processOf, tiny, uidOf } from './lab.ts'

let lab: Lab
/** While this file is there, the stand-in for QEMU does what is in it before it becomes QEMU. */
let fault: string
let flags: readonly string[]

beforeAll(async () => {
  lab = await Lab.start()
  fault = join(lab.dir, 'fault')
  const qemu = join(lab.dir, 'qemu')
  // Only builtins: a child of the shell looks, until it becomes another program, like a second QEMU.
  const script = `#!/bin/sh
case $1 in
  --version) ;;
  *)
    { read -r fault < ${fault} || :; } 2>/dev/null
    if [ -n "$fault" ]; then : > ${fault}; eval "$fault"; fi ;;
esac
exec qemu-system-x86_64 "$@"
`
  writeFileSync(qemu, script, { mode: 0o755 })
  flags = ['--qemu', qemu]
  await lab.restart('SIGTERM', { flags })
})
afterAll(() => lab.close())

/** A machine that does not run yet, so that its uid is known before its first launch. */
async function waiting(name: string): Promise<string> {
  const uid = uidOf(await lab.create(tiny(name, { runStrategy: 'Halted' })))
  await lab.sees(name, 'is Stopped', (vm) => vm.status?.phase === 'Stopped')
  return uid
}

const start = (name: string) => lab.verb(name, 'start').catch(() => {})

async function onlyOne(name: string, uid: string) {
  const vm = await lab.running(name)
  expect(lab.qemus(uid).map(({ pid }) => pid)).toEqual([processOf(vm).pid])
  return vm
}

test('the server dies after the record and before the fork: started once by the next one', async () => {
  const uid = await waiting('recorded')
  // The launch record can't be opened for writing until somebody reads: there the launch stands still.
  mkdirSync(lab.paths(uid).dir, { recursive: true })
  const block = `${lab.paths(uid).launch}.part`
  execFileSync('mkfifo', [block])
  await start('recorded')
  const { status } = await lab.sees('recorded', 'is Starting', (vm) => vm.status?.launch !== undefined)
  await lab.until('the launch has come to its record', () => existsSync(lab.paths(uid).log))
  expect(lab.qemus(uid)).toEqual([])
  await lab.end()
  rmSync(block)
  await lab.serve({ flags })
  const vm = await onlyOne('recorded', uid)
  expect(processOf(vm).launchId).not.toBe(status?.launch?.id)
  expect(vm.status?.lastExit).toBeUndefined()
})

test('the server dies after the fork and before the next record: its QEMU is taken over', async () => {
  const uid = await waiting('forked')
  writeFileSync(fault, 'kill -KILL $PPID')
  await start('forked')
  await lab.ended()
  await lab.until('QEMU lives on', () => lab.qemus(uid).length === 1)
  const [orphan] = lab.qemus(uid)
  await lab.serve({ flags })
  const vm = await onlyOne('forked', uid)
  expect(processOf(vm)).toMatchObject({ pid: orphan?.pid, startTime: orphan?.startTime })
  expect(vm.status?.restarts).toBe(0)
})

test('the server dies while what becomes QEMU is no QEMU yet: the next one waits for it', async () => {
  const uid = await waiting('slow')
  const gate = join(lab.dir, 'gate')
  execFileSync('mkfifo', [gate])
  writeFileSync(fault, `kill -KILL $PPID; read _ < ${gate}`)
  await start('slow')
  await lab.ended()
  await lab.until('the process is there', () => lab.qemus(uid).length === 1)
  const [early] = lab.qemus(uid)
  await lab.serve({ flags })
  const seen = await lab.sees('slow', 'has its process', (vm) => vm.status?.process !== undefined)
  expect(seen.status).toMatchObject({ phase: 'Starting', process: { pid: early?.pid } })
  writeFileSync(gate, '\n')
  const vm = await onlyOne('slow', uid)
  expect(processOf(vm)).toMatchObject({ pid: early?.pid, startTime: early?.startTime })
})

test('server and QEMU die together at the fork: started once more by the next one', async () => {
  const uid = await waiting('both')
  writeFileSync(fault, 'kill -KILL $PPID; exit 1')
  await start('both')
  await lab.ended()
  await lab.until('nothing is left', () => lab.qemus(uid).length === 0)
  await lab.serve({ flags })
  await onlyOne('both', uid)
})

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export const fakeBootId = '11111111-2222-3333-4444-555555555555'

export interface FakeProcess {
  readonly argv: readonly string[]
  readonly comm?: string
  readonly state?: string
  readonly threads?: number
  readonly startTime?: number
}

/** A line of /proc/PID/stat with the fields in their places. */
export function statLine(pid: number, p: FakeProcess): string {
  const zeros = (n: number) => '0 '.repeat(n)
  const { comm = 'qemu-system-x86', state = 'S', threads = 3, startTime = 1000 + pid } = p
  return `${pid} (${comm}) ${state} ${zeros(16)}${threads} 0 ${startTime} ${zeros(30).trim()}\n`
}

/** A /proc in a folder of its own, with process 1 in it. Removed after the test. */
export function fakeProc(processes: Readonly<Record<number, FakeProcess>>) {
  const root = mkdtempSync(join(tmpdir(), 'proc-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  const put = (pid: number, process: FakeProcess) => {
    mkdirSync(join(root, String(pid)), { recursive: true })
    writeFileSync(join(root, String(pid), 'stat'), statLine(pid, process))
    writeFileSync(join(root, String(pid), 'cmdline'), process.argv.map((arg) => `${arg}\0`).join(''))
  }
  mkdirSync(join(root, 'sys/kernel/random'), { recursive: true })
  writeFileSync(join(root, 'sys/kernel/random/boot_id'), `${fakeBootId}\n`)
  put(1, { argv: ['/sbin/init'], comm: 'init' })
  for (const [pid, process] of Object.entries(processes)) put(Number(pid), process)
  return {
    root,
    put,
    remove: (pid: number) => rmSync(join(root, String(pid)), { recursive: true }),
    /** Makes an entry fail with ELOOP, as EACCES would (which root never gets). */
    breakEntry(pid: number, file: 'stat' | 'cmdline') {
      const path = join(root, String(pid), file)
      rmSync(path, { force: true })
      symlinkSync(path, path)
    },
  }
}

export function qemuArgv(uid: string, runDir = '/run/plasmavmc'): string[] {
  return [
    ...['/usr/bin/qemu-system-x86_64', '-name', 'guest=shop/web,debug-threads=on', '-uuid', uid],
    ...['-fw_cfg', 'name=opt/io.plasmavmc/identity,string=l-1/3'],
    ...['-pidfile', `${runDir}/vms/${uid}/qemu.pid`],
  ]
}

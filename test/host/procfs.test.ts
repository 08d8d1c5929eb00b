import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hasEnded, Procfs, parseCmdline, parseStat } from '../../src/host/procfs.ts'
import { looksLikeQemu, scanProcesses } from '../../src/host/scan.ts'
import { fakeBootId, fakeProc, qemuArgv, statLine } from './fake-proc.ts'
import { uid } from './machines.ts'

const other = '00000000-1111-2222-3333-444444444444'

describe('/proc', () => {
  test('a command name with parentheses, spaces and newlines does not shift the fields', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 15 }), fc.nat(), (comm, startTime) => {
        expect(parseStat(statLine(42, { argv: [], comm, startTime }))).toEqual({
          ...{ pid: 42, comm, state: 'S', threads: 3, startTime },
        })
      }),
    )
  })

  test('what is no stat line is none', () => {
    for (const text of ['', '42', '42 (a', ') 42 (', '42 (a) S']) expect(parseStat(text)).toBeUndefined()
  })

  test('a /proc that is not mounted is told with what to do', () => {
    expect(() => new Procfs('/nowhere').bootId()).toThrow(
      expect.objectContaining({ code: 'ProcUnusable', hint: expect.stringContaining('mount -t proc') }),
    )
  })

  test('empty arguments are kept', () => {
    expect(parseCmdline('a\0\0b\0')).toEqual(['a', '', 'b'])
    expect(parseCmdline('')).toEqual([])
  })

  test('the real /proc tells about this process', () => {
    const proc = new Procfs()
    const stat = proc.stat(process.pid)
    expect(stat).toMatchObject({ state: 'present', value: { pid: process.pid } })
    const ticks = readFileSync('/proc/self/stat', 'utf8').split(') ').at(-1)!.split(' ')[19]
    expect(stat.state === 'present' && stat.value.startTime).toBe(Number(ticks))
    expect(proc.stat(0x7ffffffe)).toEqual({ state: 'gone' })
    expect(proc.pids()).toContain(process.pid)
  })

  test('a command line longer than the buffer is read whole', () => {
    const long = 'x'.repeat(100_000)
    const code = `process.stdout.write(require('node:fs').readFileSync('/proc/self/cmdline'))`
    const cmdline = execFileSync(process.execPath, ['-e', code, long]).toString()
    const { root } = fakeProc({ 5: { argv: parseCmdline(cmdline) } })
    expect(new Procfs(root).cmdline(5)).toMatchObject({ value: [process.execPath, '-e', code, long] })
  })

  test('a zombie has ended only when no thread of it is left', () => {
    const stat = { pid: 5, comm: 'qemu', startTime: 1 }
    expect(hasEnded({ ...stat, state: 'Z', threads: 1 })).toBe(true)
    expect(hasEnded({ ...stat, state: 'Z', threads: 4 })).toBe(false)
    expect(hasEnded({ ...stat, state: 'X', threads: 0 })).toBe(true)
    expect(hasEnded({ ...stat, state: 'D', threads: 1 })).toBe(false)
  })
})

describe('scan', () => {
  test('finds QEMUs by name and doubles by arguments, and nothing else', () => {
    const { root } = fakeProc({
      10: { argv: qemuArgv(uid) },
      11: { argv: ['node', '/x/fake-qemu.ts', ...qemuArgv(other).slice(1)], comm: 'node' },
      12: { argv: ['/usr/bin/qemu-system-aarch64', '-M', 'virt'] },
      13: { argv: ['bash', '-c', `qemu-system-x86_64 -uuid ${uid}`], comm: 'bash' },
      14: { argv: [], comm: 'kthreadd' },
      15: { argv: [], state: 'Z', threads: 1 },
    })
    const { processes, incomplete } = scanProcesses(new Procfs(root), fakeBootId)
    expect(incomplete).toBeUndefined()
    expect(processes.map((p) => [p.pid, p.uid, p.name, p.launchId, p.runDir])).toEqual([
      [10, uid, 'shop/web', 'l-1', '/run/plasmavmc'],
      [11, other, 'shop/web', 'l-1', '/run/plasmavmc'],
      [12, '', '', undefined, undefined],
    ])
    expect(processes[0]).toMatchObject({ startTime: 1010, bootId: fakeBootId, state: 'S' })
  })

  test('--uuid and upper case name the same machine', () => {
    const { root } = fakeProc({ 10: { argv: ['qemu-system-x86_64', '--uuid', uid.toUpperCase()] } })
    expect(scanProcesses(new Procfs(root), fakeBootId).processes[0]?.uid).toBe(uid)
  })

  test.each(['cmdline', 'stat'] as const)(
    'a QEMU whose %s is unreadable makes the scan incomplete',
    (file) => {
      const proc = fakeProc({ 10: { argv: qemuArgv(uid) }, 11: { argv: qemuArgv(other) } })
      proc.breakEntry(10, file)
      const scan = scanProcesses(new Procfs(proc.root), fakeBootId)
      expect(scan.incomplete).toContain('process 10')
      expect(scan.processes.map((p) => p.pid)).toEqual([11])
    },
  )

  test('hidden processes (hidepid) make the scan incomplete', () => {
    const proc = fakeProc({ 10: { argv: ['sh'] } })
    proc.remove(1)
    expect(scanProcesses(new Procfs(proc.root), fakeBootId).incomplete).toContain('hidepid')
  })

  test('a /proc that is not there makes the scan incomplete', () => {
    expect(scanProcesses(new Procfs('/nowhere'), fakeBootId).incomplete).toContain('ENOENT')
  })

  test('a QEMU whose main thread has ended while others live is not absent', () => {
    const { root } = fakeProc({ 10: { argv: [], state: 'Z', threads: 2 } })
    const scan = scanProcesses(new Procfs(root), fakeBootId)
    expect(scan).toMatchObject({ incomplete: 'process 10 (QEMU) is starting or ending', passing: true })
  })

  test.each(['D', 'R'])('a QEMU without a command line in state %s is not absent', (state) => {
    // Its memory is gone and its files are still being closed, or it has only just been executed.
    const tree = fakeProc({ 10: { argv: qemuArgv(uid) } })
    const proc = new Procfs(tree.root)
    const known = new Map(scanProcesses(proc, fakeBootId).processes.map((p) => [p.pid, p]))
    tree.put(10, { argv: [], state, threads: 1 })
    expect(scanProcesses(proc, fakeBootId, known)).toMatchObject({ processes: [{ pid: 10, uid, state }] })
    expect(scanProcesses(proc, fakeBootId)).toMatchObject({ processes: [], passing: true })
  })

  test('a command line without end is cut, and whose it is stands at its beginning', () => {
    const endless = ['-append', 'x'.repeat(9 << 20)]
    const { root } = fakeProc({
      10: { argv: [...qemuArgv(uid), ...endless] },
      11: { argv: ['sh', ...endless] },
    })
    const scan = scanProcesses(new Procfs(root), fakeBootId)
    expect(scan.processes.map((p) => [p.pid, p.uid])).toEqual([[10, uid]])
    expect(scan.incomplete).toBeUndefined()
  })

  test('an ending QEMU is told by the scan before, unless its pid was used again', () => {
    const tree = fakeProc({ 10: { argv: qemuArgv(uid) } })
    const proc = new Procfs(tree.root)
    const known = new Map(scanProcesses(proc, fakeBootId).processes.map((p) => [p.pid, p]))
    tree.put(10, { argv: [], state: 'Z', threads: 2 })
    expect(scanProcesses(proc, fakeBootId, known)).toMatchObject({
      processes: [{ pid: 10, uid, state: 'Z' }],
    })
    tree.put(10, { argv: [], state: 'Z', threads: 2, startTime: 9 })
    expect(scanProcesses(proc, fakeBootId, known)).toMatchObject({ processes: [], passing: true })
  })

  test('a hundred QEMUs are all found', () => {
    const entries = Array.from({ length: 100 }, (_, i) => [100 + i, { argv: qemuArgv(uid) }] as const)
    const proc = new Procfs(fakeProc(Object.fromEntries(entries)).root)
    expect(scanProcesses(proc, fakeBootId).processes).toHaveLength(100)
  })

  test('an argument of a guest’s kernel is no identity', () => {
    expect(looksLikeQemu(['sh', '-append', '-uuid'])).toBe(false)
  })
})

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { serviceOf, tellReady } from '../../src/host/service-manager.ts'
import { silentLog } from '../../src/lib/log.ts'

test.each([
  ['version 2', '0::/system.slice/plasmavmc.service\n', 'plasmavmc.service'],
  [
    'version 1',
    '4:memory:/x.slice\n1:name=systemd:/system.slice/a.service\n0::/user.slice/b.service\n',
    'a.service',
  ],
  ['a user’s', '0::/user.slice/user-1000.slice/user@1000.service/app.slice/p.service\n', 'p.service'],
  ['a shell’s', '0::/user.slice/user-1000.slice/user@1000.service/app.slice/sh.scope\n', undefined],
  ['no service manager', '0::/\n', undefined],
])('the service that a process runs in, %s', (_, cgroup, service) => expect(serviceOf(cgroup)).toBe(service))

/**
 * Prints the first datagram that comes to a Unix socket, which Node.js can't have, as one line of JSON; says first
 * that it listens.
 */
const receiver = [
  'import json, socket, sys',
  's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
  's.bind(sys.argv[1])',
  'print("listens", flush=True)',
  'print(json.dumps(s.recv(4096).decode()), flush=True)',
].join('\n')

test('a service manager that waits for it is told that the start is over', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'notify-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const socket = join(dir, 'socket')
  const child = spawn('python3', ['-c', receiver, socket], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const told: string[] = []
  for await (const line of createInterface(child.stdout)) {
    told.push(line)
    if (told.length > 1) break
    await tellReady({ PATH: process.env.PATH, NOTIFY_SOCKET: socket }, silentLog)
  }
  expect(told).toEqual(['listens', expect.stringContaining('READY=1')])
})

test('where nobody asked, or nobody listens, nothing fails; the latter is logged', async () => {
  const lines: string[] = []
  const log = { ...silentLog, warn: (message: string) => void lines.push(message) }
  await tellReady({ PATH: process.env.PATH }, log)
  expect(lines).toEqual([])
  await tellReady({ PATH: process.env.PATH, NOTIFY_SOCKET: '/nowhere/socket' }, log)
  expect(lines).toHaveLength(1)
})

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { lateWrites } from '../../src/host/late-writes.ts'
import { sleep, systemClock } from '../../src/lib/clock.ts'
import { privileged } from './disk-fixture.ts'

const [host, far] = [`pv-late-a${process.pid}`, `pv-late-b${process.pid}`]
const children: ChildProcess[] = []
const ip = (...args: readonly string[]) => execFileSync('ip', args, { encoding: 'utf8' })
const on = (namespace: string, ...argv: readonly string[]) => ip('netns', 'exec', namespace, ...argv)

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  for (const namespace of [host, far])
    if (existsSync(`/run/netns/${namespace}`)) ip('netns', 'del', namespace)
})

/** Runs a program of Node in a namespace; what it prints goes to `told`. */
function start(namespace: string, program: string, told: (text: string) => void): ChildProcess {
  const argv = ['netns', 'exec', namespace, process.execPath, '-e', program]
  const child = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  child.stdout.on('data', (chunk) => told(String(chunk)))
  children.push(child)
  return child
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 45_000; !holds(); await sleep(systemClock, 100))
    if (performance.now() > end) throw new Error(`not seen: ${what}`)
}

test.runIf(privileged)(
  'what was advised keeps the kernel from sending for the dead once the network heals',
  async () => {
    for (const namespace of [host, far]) ip('netns', 'add', namespace)
    ip('-n', host, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', far)
    for (const [namespace, address] of [
      [host, '10.78.0.1/24'],
      [far, '10.78.0.2/24'],
    ] as const) {
      ip('-n', namespace, 'link', 'set', 'eth0', 'up')
      ip('-n', namespace, 'addr', 'add', address, 'dev', 'eth0')
    }
    const advised = /sysctl -w (\S+=\d+)/.exec(lateWrites(() => '0') ?? '')?.[1] ?? ''
    on(host, 'sysctl', '-qw', advised)
    const received = [0, 0]
    start(
      far,
      "let n = 0; require('net').createServer((s) => { const i = n++; s.on('error', () => {}).on('data', (d) => console.log(i, d.length)) }).listen(7777)",
      (text) => {
        for (const line of text.trim().split('\n')) {
          const [connection = 0, bytes = 0] = line.split(' ').map(Number)
          received[connection] = (received[connection] ?? 0) + bytes
        }
      },
    )
    const connecting =
      "const go = () => { const s = require('net').connect(7777, '10.78.0.2', () => setInterval(() => s.write(Buffer.alloc(4096)), 100)); s.on('error', () => setTimeout(go, 100)) }; go()"
    const writer = start(host, connecting, () => {})
    await until('it writes', () => received[0]! > 8_192)
    const sockets = () => on(host, 'ss', '-Htan', 'dport', '=', ':7777').trim()
    const queued = () => Number(sockets().split(/\s+/)[2] ?? 0)
    on(
      far,
      'nft',
      'add table ip cut; add chain ip cut in { type filter hook input priority 0; policy drop; }',
    )
    await until('what it writes piles up', () => queued() > 40_000)
    const [before] = received
    const gone = once(writer, 'exit')
    writer.kill('SIGKILL')
    await gone
    expect(queued(), 'the kernel still has it').toBeGreaterThan(40_000)
    await until('the kernel gives it up', () => sockets() === '')
    on(far, 'nft', 'delete table ip cut')
    start(host, connecting, () => {})
    await until('another writes', () => received[1]! > 8_192)
    expect(received[0]).toBe(before)
  },
)

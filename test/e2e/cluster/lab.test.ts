import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { addressOf, Network } from '../../../src/drill/cluster/network.ts'
import { brokenBeats } from './beats.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

function started(child: ChildProcess): ChildProcess {
  closing.push(() => child.kill('SIGKILL'))
  return child
}

/** Runs on a host: sends a datagram to another every 20 ms, and prints a dot for each that it gets. */
const prober = `const s = require('dgram').createSocket('udp4')
s.on('error', () => {}).on('message', () => process.stdout.write('.'))
s.bind(5000, () => setInterval(() => s.send('x', 5000, process.argv[1], () => {}), 20))`

/** Counts what a host hears of another. */
class Ear {
  heard = 0

  constructor(network: Network, host: string, other: string) {
    const argv = [`--net=/run/netns/${network.namespace(host)}`, '--', process.execPath, '-e', prober, other]
    const child = started(spawn('nsenter', argv, { stdio: ['ignore', 'pipe', 'inherit'] }))
    child.stdout?.on('data', (dots: Buffer) => {
      this.heard += dots.length
    })
  }

  /** Resolves when it has heard this much more. */
  async hears(more: number): Promise<void> {
    for (const end = this.heard + more; this.heard < end; ) await pause(10)
  }
}

/** Whether an ear is deaf: what was under way has come, and nothing comes while the clock, or another ear, goes on. */
async function isDeaf(ear: Ear, goesOn: () => Promise<void>): Promise<boolean> {
  await goesOn()
  const before = ear.heard
  await goesOn()
  return ear.heard === before
}

test('the network of the lab cuts both ways and either, and heals', async () => {
  const network = await Network.make(['a', 'b'])
  closing.push(() => network.close())
  const [a, b] = [new Ear(network, 'a', addressOf(2)), new Ear(network, 'b', addressOf(1))]
  await Promise.all([a.hears(3), b.hears(3)])
  await network.cut('a', 'in')
  expect(await isDeaf(a, () => b.hears(10))).toBe(true)
  await network.heal('a')
  await a.hears(3)
  await network.cut('a', 'out')
  expect(await isDeaf(b, () => a.hears(10))).toBe(true)
  await network.cut('a', 'in')
  expect(await isDeaf(a, () => pause(300))).toBe(true)
  await network.heal('a')
  await Promise.all([a.hears(3), b.hears(3)])
})

test('the witness sees two QEMUs of one machine, whichever namespaces they are in', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pvc-'))
  closing.push(() => rmSync(folder, { recursive: true }))
  const like = (uid: string) => ['-e', 'setInterval(()=>{},1e6)', '--', '-uuid', uid, `${folder}/qmp.sock`]
  started(spawn(process.execPath, like('one')))
  started(spawn(process.execPath, like('two')))
  const [script, dashes, flag, uid, socket] = like('one').slice(1)
  const inside = `exec "$NODE" -e '${script}' ${dashes} ${flag} ${uid} "$SOCKET"`
  const own = ['--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', inside]
  started(spawn('unshare', own, { env: { ...process.env, NODE: process.execPath, SOCKET: socket } }))
  const witness = started(spawn(process.execPath, [resolve('test/e2e/cluster/witness.ts'), folder]))
  const [line] = await once(witness.stdout!, 'data')
  const [seen = ''] = String(line).split('\n')
  expect(JSON.parse(seen)).toMatchObject({ uid: 'one', pids: [expect.any(String), expect.any(String)] })
})

const written = (text: string) =>
  text.split(' ').map((word) => {
    const [boot, beat] = word.split('.').map(Number)
    return { boot: boot!, beat: beat! }
  })

test.each([
  ['one boot after the other', '1.1 1.2 2.1 2.2', '1.1 1.2 2.1', undefined],
  ['a boot that wrote nothing', '1.1 3.1', '1.1', undefined],
  ['a write that is lost', '1.1 1.2 2.1', '1.1 1.2 1.3 2.1', /1 3 was told/],
  ['a hole', '1.1 1.3', '1.1', /1 3 follows 1 1/],
  ['two writers', '1.1 2.1 1.2 2.2', '1.1', /1 2 follows 2 1/],
  ['two writers that count one boot twice', '1.1 1.2 1.1', '1.1', /1 1 follows 1 2/],
])('what is on a disk tells %s', (_what, onDisk, told, broken) => {
  const found = brokenBeats(written(onDisk), written(told))
  if (broken) expect(found).toMatch(broken)
  else expect(found).toBeUndefined()
})

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import { vmPaths } from '../../src/host/paths.ts'
import type { Host } from '../../src/resources/host.ts'
import { Lab, processOf, program, tiny, uidOf } from './lab.ts'
import { startTimeOf } from './proc.ts'

let lab: Lab
let kubeconfig: string
let agent: ChildProcess | undefined
/** Port on which the agent tells of its health. */
let health: number

const hostsPath = '/apis/plasmavmc.io/v1alpha1/hosts'
const runDir = () => join(lab.dir, 'ar')
const dataDir = () => join(lab.dir, 'ad')

/** Starts the agent of another host that knows the server by its kubeconfig alone. */
function startAgent(more: readonly string[] = []): ChildProcess {
  const output = openSync(join(lab.dir, 'agent.log'), 'a')
  const store = ['--store', 'kubernetes', '--kubeconfig', kubeconfig, '--roles', 'agent']
  const own = [
    ...['--data-dir', dataDir(), '--run-dir', runDir(), '--host-name', 'far', '--accelerator', 'tcg'],
    ...['--metrics-listen', `127.0.0.1:${health}`],
  ]
  const child = spawn(program, ['serve', ...store, ...own, ...more], {
    stdio: ['ignore', output, output],
    env: { ...lab.env, PLASMAVMC_DATA_DIR: undefined },
  })
  closeSync(output)
  return child
}

async function kill(child: ChildProcess | undefined, signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL') {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}

const agentLog = () => readFileSync(join(lab.dir, 'agent.log'), 'utf8')

/** Starts the agent anew; resolves once it works. */
async function restartAgent(): Promise<void> {
  await kill(agent)
  const starts = () => agentLog().split('runs as agent').length
  const before = starts()
  agent = startAgent()
  await lab.until('the agent has started', () => starts() > before)
}

async function ready(): Promise<void> {
  await lab.until(`the host is Ready: ${agentLog()}`, async () => {
    const host = await lab.client.json<Host>('GET', `${hostsPath}/far`)
    return host.status?.conditions.some(({ type, status }) => type === 'Ready' && status === 'True') === true
  })
}

/** What the agent's probes hear. */
async function probed(path: string): Promise<readonly [number, string]> {
  const answer = await fetch(`http://127.0.0.1:${health}${path}`, { signal: AbortSignal.timeout(10_000) })
  return [answer.status, await answer.text()]
}

beforeAll(async () => {
  health = await freePort()
  lab = await Lab.start({ flags: ['--roles', 'api,controller'] })
  const { stdout } = await lab.cli('kubeconfig')
  kubeconfig = join(lab.dir, 'kubeconfig')
  writeFileSync(kubeconfig, stdout)
  agent = startAgent()
  await ready()
})
afterAll(async () => {
  await kill(agent)
  await lab?.close()
})

test('a machine is placed on the host that joined over HTTPS, and runs there', async () => {
  await lab.create(tiny('web'))
  const vm = await lab.running('web')
  expect(vm.status).toMatchObject({ hostName: 'far', onHostLoss: 'Manual' })
  const [qemu, ...others] = lab.qemus(uidOf(vm))
  expect([qemu?.pid, others.length]).toEqual([processOf(vm).pid, 0])
  expect(qemu?.argv.join(' ')).toContain(vmPaths(runDir(), uidOf(vm)).qmp)
})

test('an agent that is killed, and started again, adopts what runs', async () => {
  const before = processOf(await lab.running('web'))
  await kill(agent)
  expect(startTimeOf(before.pid)).toBe(before.startTime)
  await restartAgent()
  await ready()
  expect(processOf(await lab.running('web'))).toEqual(before)
  // The QEMU of before is in the hands of the agent of now.
  await lab.patch('web', { spec: { runStrategy: 'Halted' } })
  await lab.sees('web', 'is Stopped', (vm) => vm.status?.phase === 'Stopped')
  expect(lab.qemus()).toEqual([])
  await lab.patch('web', { spec: { runStrategy: 'Always' } })
  expect(processOf(await lab.running('web')).pid).not.toBe(before.pid)
})

test('a guest runs on while the API is away, and what was asked for meanwhile is done after', async () => {
  const vm = await lab.running('web')
  const { pid, startTime } = processOf(vm)
  await lab.until('its agent is ready', async () => (await probed('/readyz'))[0] === 200)
  expect((await probed('/readyz?verbose'))[1]).toMatch(/^\[\+\]ping ok\n\[\+\]store ok\n\[\+\]machines ok\n/)
  await lab.end('SIGKILL')
  const away = performance.now()
  await lab.until('its agent is not ready', async () => (await probed('/readyz'))[0] === 503)
  expect((await probed('/readyz'))[1]).toMatch(/^\[-\]store failed: \S/m)
  // Longer than its lease is good for.
  await lab.until('the lease has run out', () => performance.now() - away > 12_000)
  expect(startTimeOf(pid)).toBe(startTime)
  expect(agent?.exitCode).toBeNull()
  expect(await probed('/livez')).toEqual([200, 'ok'])
  await lab.serve({ flags: ['--roles', 'api,controller'] })
  await ready()
  expect(processOf(await lab.running('web'))).toMatchObject({ pid, startTime })
  await lab.until('its agent is ready', async () => (await probed('/readyz'))[0] === 200)
  await lab.create(tiny('next'))
  expect((await lab.running('next')).status?.hostName).toBe('far')
  await lab.remove('next')
  await lab.gone('next')
})

test('a server that would run machines itself is not started beside the host that joined', async () => {
  await lab.end('SIGTERM')
  await expect(lab.serve()).rejects.toThrow(/far joined this store/)
  await lab.serve({ flags: ['--roles', 'api,controller'] })
  await ready()
})

test('says what is wrong with what it was told', async () => {
  const run = (...flags: string[]) => lab.cli('serve', '--store', 'kubernetes', '--roles', 'agent', ...flags)
  const own = ['--data-dir', join(lab.dir, 'x'), '--run-dir', join(lab.dir, 'y')]
  expect((await run(...own, '--fencing', 'guard')).stderr).toMatch(/--fencing: must be none/)
  const nowhere = await run(...own, '--kubeconfig', '/nowhere')
  expect(nowhere.stderr).toMatch(/--kubeconfig: \/nowhere: .*no such file/)
  expect((await run(...own)).stderr).toMatch(/needs --kubeconfig: this is no pod/)
  const away = join(lab.dir, 'away')
  writeFileSync(away, readFileSync(kubeconfig, 'utf8').replaceAll(lab.address, '127.0.0.1:1'))
  expect((await run(...own, '--kubeconfig', away)).stderr).toMatch(/no answer from 127\.0\.0\.1:1/)
})

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import { Lab, tiny } from './lab.ts'

let lab: Lab
let open: number

beforeAll(async () => {
  open = await freePort()
  lab = await Lab.start({ flags: ['--metrics-listen', `127.0.0.1:${open}`, '--log-level', 'debug'] })
})
afterAll(() => lab.close())

/** As Prometheus does it: a bearer token from a file, the CA of the API. */
async function scrape(token: string): Promise<{ readonly code: string; readonly text: string }> {
  const ca = join(lab.dataDir, 'pki/ca.crt')
  const header = `Authorization: Bearer ${token}`
  const { stdout } = await lab.run('curl', [
    ...['-sS', '-m', '10', '--cacert', ca, '-H', header, '-w', '%{http_code}'],
    `https://${lab.address}/metrics`,
  ])
  return { code: stdout.slice(-3), text: stdout.slice(0, -3) }
}

async function scraped(): Promise<string> {
  return (await fetch(`http://127.0.0.1:${open}/metrics`, { signal: AbortSignal.timeout(10_000) })).text()
}

const seriesIn = (text: string, series: string) => {
  const line = text.split('\n').find((one) => one.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length))
}

test('a token in a file opens /metrics for as long as it says; without one nobody reads it', async () => {
  const { stdout } = await lab.cli('token', '--raw', '--duration', '12h')
  expect(stdout).toMatch(/^plasmavmc-v1\.[\w-]+\n$/)
  const file = join(lab.dir, 'token')
  writeFileSync(file, stdout)
  const { code, text } = await scrape(readFileSync(file, 'utf8').trim())
  expect(code).toBe('200')
  expect(text).toContain('# TYPE plasmavmc_build_info gauge\n')
  expect(seriesIn(text, 'plasmavmc_store_available')).toBe(1)
  expect(
    seriesIn(text, 'plasmavmc_certificate_expiry_timestamp_seconds{certificate="server"}'),
  ).toBeGreaterThan(Date.now() / 1000 + 86_400)
  expect((await scrape('plasmavmc-v1.AAAA')).code).toBe('401')
  const unsigned = await lab.run('curl', ['-sSk', '-m', '10', `https://${lab.address}/metrics`])
  expect(JSON.parse(unsigned.stdout)).toMatchObject({ kind: 'Status', code: 401 })
  expect(await lab.cli('token', '--raw', '--duration', '169h')).toMatchObject({ code: 1, stdout: '' })
})

test('a real QEMU that is killed: its end, its restart and its changes of phase are counted once', async () => {
  await lab.create(tiny('hit'))
  const { metadata, status } = await lab.running('hit')
  process.kill(status?.process?.pid ?? 0, 'SIGKILL')
  await lab.sees('hit', 'runs again', (vm) => vm.status?.phase === 'Running' && vm.status.restarts === 1)
  expect(lab.qemus(metadata.uid)).toHaveLength(1)
  // What comes from a copy of the store, and what is written later, follows a moment after.
  const running = 'plasmavmc_vm_phase_count{phase="Running",namespace="default"}'
  await lab.until('the change of phase is counted', async () => seriesIn(await scraped(), running) === 1)
  const told = 'plasmavmc_events_total{result="created"}'
  await lab.until('events are counted', async () => (seriesIn(await scraped(), told) ?? 0) > 1)
  const text = await scraped()
  expect(seriesIn(text, 'plasmavmc_vm_restarts_total')).toBe(1)
  expect(seriesIn(text, 'plasmavmc_vm_exits_total{reason="Killed"}')).toBe(1)
  // Twice: its first launch and its second.
  const starts = 'plasmavmc_vm_phase_transition_time_seconds_count{phase="Running",last_phase="Starting"}'
  expect(seriesIn(text, starts)).toBe(2)
  const first = 'plasmavmc_vm_phase_transition_time_from_creation_seconds_count{phase="Running"}'
  expect(seriesIn(text, first)).toBe(1)
  const asked = 'plasmavmc_qmp_command_duration_seconds_count{command="query-status"}'
  expect(seriesIn(text, asked)).toBeGreaterThan(0)
  const kept = 'plasmavmc_store_operation_duration_seconds_count{operation="put"}'
  expect(seriesIn(text, kept)).toBeGreaterThan(5)
})

test('lines of the log bear the pass or the request that they belong to', async () => {
  const lines = readFileSync(join(lab.dir, 'server.log'), 'utf8').split('\n')
  const told = lines.flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))
  const passes = told.filter(({ msg, controller }) => msg === 'pass ended' && controller === 'vm')
  expect(passes.length).toBeGreaterThan(3)
  for (const pass of passes)
    expect(pass).toMatchObject({ key: 'default/hit', reconcileID: expect.stringMatching(/^[0-9a-f-]{36}$/) })
  expect(new Set(passes.map(({ reconcileID }) => reconcileID)).size).toBe(passes.length)
})

import { afterAll, beforeAll, expect, test } from 'vitest'
import { openConsole } from '../../src/cli/console.ts'
import { Lab, tiny } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start({ flags: ['--consoles-per-user', '1', '--failed-attempts', '5'] })
  await lab.create(tiny('web'))
  await lab.running('web')
})
afterAll(() => lab?.close())

test('one who has as many consoles as they may is told so by every client, until one is closed', async () => {
  const first = await openConsole(lab.client, 'default', 'web')
  const { code, stderr } = await lab.cli('console', 'web')
  expect(code).toBe(1)
  expect(stderr).toMatch(/admin has 1 consoles and displays, .*have --consoles-per-user raised/)
  const ca = `${lab.dataDir}/pki/ca.crt`
  const { stdout: token } = await lab.cli('token', '--raw')
  const upgrade = [
    ...['connection: upgrade', 'upgrade: websocket', 'sec-websocket-version: 13'],
    ...['sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==', `authorization: Bearer ${token.trim()}`],
  ].flatMap((header) => ['-H', header])
  const url = `https://${lab.address}/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines/web/console`
  const { stdout } = await lab.run('curl', ['-sSi', '--http1.1', '-m', '10', '--cacert', ca, ...upgrade, url])
  expect(stdout).toMatch(/^HTTP\/1\.1 429 /)
  expect(stdout).toMatch(/^retry-after: 5\r$/im)
  expect(JSON.parse(stdout.split('\r\n\r\n')[1] ?? '')).toMatchObject({
    ...{ kind: 'Status', reason: 'TooManyRequests', code: 429 },
    details: { retryAfterSeconds: 5 },
  })
  first.terminate()
  await lab.until('there is room again', async () => {
    const again = await openConsole(lab.client, 'default', 'web').catch(() => undefined)
    again?.terminate()
    return again !== undefined
  })
})

test('bad signatures are looked at as often as it was told', async () => {
  const wrong = {
    PLASMAVMC_ACCESS_KEY_ID: 'PVMC00000000000GUESS',
    PLASMAVMC_SECRET_ACCESS_KEY: 'x'.repeat(40),
  }
  const user = Object.values(wrong).join(':')
  const [host, ca] = [`https://${lab.address}/api`, `${lab.dataDir}/pki/ca.crt`]
  const args = ['-sS', '-m', '10', '--cacert', ca, '--aws-sigv4', 'aws:amz:local:plasmavmc', '--user', user]
  // In one run of curl, so that not much of a second goes by.
  const { stdout } = await lab.run('curl', [...args, '-w', ' %{http_code}\n', ...Array(7).fill(host)])
  const codes = [...stdout.matchAll(/ (\d{3})$/gm)].map(([, code]) => code)
  expect(codes).toEqual(['401', '401', '401', '401', '401', '429', '429'])
})

test('a server that is told nonsense does not start, and says which setting', async () => {
  const { code, stderr } = await lab.cli('serve', '--watches-per-user', '3')
  expect([code, stderr]).toEqual([2, expect.stringContaining('--watches-per-user: must be at least 10')])
})

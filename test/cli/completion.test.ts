import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { commands } from '../../src/cli/program.ts'
import { type FakeServer, fakeServer, refuse, reply, runCommand } from './fake-server.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

const lists: Readonly<Record<string, readonly string[]>> = {
  '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines': ['web', 'web2', 'db'],
  '/apis/plasmavmc.io/v1alpha1/namespaces/shop/virtualmachines': ['till'],
  '/apis/plasmavmc.io/v1alpha1/hosts': ['h1', 'h2'],
  '/apis/plasmavmc.io/v1alpha1/accesskeys': ['pvmca', 'pvmcb'],
  '/api/v1/namespaces': ['default', 'shop', 'plasmavmc-system'],
}

let server: FakeServer
beforeEach(async () => {
  server = await fakeServer(({ url }, response) => {
    const names = lists[url.split('?')[0] ?? '']
    if (!names) return refuse(response, 404, 'NotFound', 'no')
    reply(response, 200, { items: names.map((name) => ({ metadata: { name } })) })
  })
})
afterEach(() => server.close())

const flags = () => ['--server', server.address, '--data-dir', server.dataDir]

/** What may follow, without descriptions; the last word is being typed. */
async function next(...words: string[]): Promise<string[]> {
  const { code, out, err } = await runCommand(['__complete', '--', ...flags(), ...words])
  expect({ code, err }).toEqual({ code: 0, err: '' })
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split('\t')[0] ?? '')
}

test('commands', async () => {
  expect(await next('')).toEqual([...commands.map(([name]) => name), 'help'])
  expect(await next('dr')).toEqual(['drain', 'drill'])
  expect(await next('help', 'un')).toEqual(['unpause', 'uncordon'])
  expect(await next('nonsense', '')).toEqual([])
})

test('names of machines, hosts and namespaces, as the server has them', async () => {
  expect(await next('start', '')).toEqual(['web', 'web2', 'db'])
  expect(await next('console', 'w')).toEqual(['web', 'web2'])
  expect(await next('console', 'web', '')).toEqual([])
  expect(await next('-n', 'shop', 'vnc', '')).toEqual(['till'])
  expect(await next('stop', '--namespace=shop', '')).toEqual(['till'])
  expect(await next('drain', '')).toEqual(['h1', 'h2'])
  expect(await next('get', 'vms', '-n', '')).toEqual(['default', 'shop'])
})

test('types, then names; in one word, too', async () => {
  expect(await next('get', 'v')).toEqual(['virtualmachines', 'vm', 'vms'])
  expect(await next('describe', 'vm', 'd')).toEqual(['db'])
  expect(await next('delete', 'vm', 'web', 'web')).toEqual(['web', 'web2'])
  expect(await next('wait', 'vm/w')).toEqual(['vm/web', 'vm/web2'])
  expect(await next('get', 'nothing', '')).toEqual([])
  expect(await next('explain', 'ho')).toEqual(['hosts'])
})

test('options, their formats, and files', async () => {
  expect(await next('vnc', '--l')).toEqual(['--listen'])
  expect(await next('get', '--kube')).toEqual(['--kubeconfig'])
  expect(await next('start', 'web', '-o', '')).toEqual(['json', 'yaml', 'name'])
  expect(await next('apply', '-f', 'x')).toEqual([':files'])
  // A value is no operand.
  expect(await next('vnc', '--listen', '127.0.0.1:1', '')).toEqual(['web', 'web2', 'db'])
  expect(await next('completion', '')).toEqual(['bash', 'zsh', 'fish'])
})

test('keys, what auth asks for, levels and whom to be', async () => {
  expect(await next('key', '')).toEqual(['create', 'list', 'disable', 'enable', 'rotate', 'delete'])
  expect(await next('key', 'disable', 'PVMC')).toEqual(['PVMCA', 'PVMCB'])
  expect(await next('key', 'create', '')).toEqual([])
  expect(await next('auth', '')).toEqual(['can-i', 'whoami'])
  expect(await next('auth', 'can-i', 'g')).toEqual(['get'])
  expect(await next('auth', 'can-i', 'get', 'vm')).toEqual(['vm', 'vms'])
  expect(await next('serve', '--log-level', '')).toEqual(['debug', 'info', 'warn', 'error'])
  expect(await next('get', 'vms', '-o', '')).toEqual(['wide', 'json', 'yaml', 'name', 'jsonpath='])
  expect(await next('get', '--as')).toEqual(['--as', '--as-group'])
  // Values of global options are no command, and names are asked for as that user.
  expect(await next('--as', 'bob', '--as-group', 'x', 'start', 'd')).toEqual(['db'])
  expect(server.seen.at(-1)?.headers).toMatchObject({ 'impersonate-user': 'bob', 'impersonate-group': 'x' })
})

test('a server that does not answer, or refuses, is nothing to say', async () => {
  expect((await runCommand(['__complete', '--', '--server', '127.0.0.1:1', 'start', ''])).out).toBe('')
  await server.close()
  const slow = await fakeServer(() => {})
  const began = performance.now()
  const { code, out } = await runCommand([
    '__complete',
    '--',
    '--server',
    slow.address,
    '--data-dir',
    slow.dataDir,
    'start',
    '',
  ])
  expect([code, out]).toEqual([0, ''])
  expect(performance.now() - began).toBeLessThan(10_000)
  await slow.close()
  server = await fakeServer(() => {})
})

test('for kubectl it ends with what kubectl reads last', async () => {
  const ask = async (...words: string[]) =>
    (await runCommand(['__complete', '--cobra', '--', ...flags(), ...words])).out
  expect(await ask('start', 'd')).toBe('db\n:4\n')
  expect(await ask('apply', '-f', '')).toBe(':0\n')
})

test('is not listed, and is refused for shells it does not know', async () => {
  expect((await runCommand(['help'])).out).not.toContain('__complete')
  expect(await runCommand(['completion', 'tcsh'])).toMatchObject({ code: 2 })
  expect(await runCommand(['completion'])).toMatchObject({ code: 2 })
})

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'pvcomp-'))
})
afterAll(() => rmSync(dir, { recursive: true }))

/** Only where readline runs may options be changed. */
const typing = String.raw`
source "$1"
read -ra COMP_WORDS <<<"$COMP_LINE"
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${'$'}{#COMP_WORDS[@]} - 1))
compopt() { echo "compopt $*"; }
_plasmavmc
printf '%s\n' "${'$'}{COMPREPLY[@]}"
`

/** Types a line into a real bash whose completion is ours, and looks at what it would show. */
async function typed(line: string, env: Record<string, string> = {}): Promise<string[]> {
  const { out } = await runCommand(['completion', 'bash'])
  const script = join(dir, 'bash')
  // The program as this checkout has it.
  writeFileSync(script, out.replaceAll('/opt/plasmavmc/bin/plasmavmc', join(root, 'bin', 'plasmavmc')))
  const file = join(dir, 'type')
  writeFileSync(file, typing)
  const all = { PATH: process.env['PATH'] ?? '', COMP_LINE: line, COMP_POINT: String(line.length), ...env }
  const { stdout } = await run('bash', ['--norc', file, script], { env: all, timeout: 60_000 })
  return stdout.split('\n').filter((one) => one !== '')
}

test('in a real bash', { timeout: 120_000 }, async () => {
  const env = { PLASMAVMC_SERVER: server.address, PLASMAVMC_DATA_DIR: server.dataDir }
  expect(await typed('plasmavmc unc')).toEqual(['uncordon'])
  expect(await typed('plasmavmc console ', env)).toEqual(['web', 'web2', 'db'])
  expect(await typed('plasmavmc -n shop console t', env)).toEqual(['till'])
  expect(await typed('plasmavmc get vm/d', env)).toEqual(['vm/db'])
  expect(await typed('plasmavmc apply -f ')).toEqual(['compopt -o default'])
  // Nothing that is typed is run.
  const trap = join(dir, 'trap')
  await typed(`plasmavmc get $(touch ${trap}) \`touch ${trap}\``)
  await expect(run('test', ['-e', trap])).rejects.toThrow()
})

test('the plugin and its completion are the program under other names', { timeout: 60_000 }, async () => {
  const kube = join(dir, 'kube')
  writeFileSync(kube, '{}')
  chmodSync(kube, 0o600)
  const env = { PATH: process.env['PATH'] ?? '', HOME: dir, KUBECONFIG: kube }
  const help = await run(join(root, 'bin/kubectl-plasmavmc'), ['help'], { env })
  expect(help.stdout).toContain('Usage: kubectl plasmavmc')
  const completed = await run(join(root, 'bin/kubectl_complete-plasmavmc'), ['conso'], { env })
  expect(completed.stdout.split('\n')).toEqual([expect.stringMatching(/^console\t/), ':4', ''])
})

import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { kubeFiles, readKubeconfig } from '../../src/cli/kube-file.ts'
import { type FakeServer, fakeServer, reply, runCommand } from './fake-server.ts'

let server: FakeServer
let dir: string
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'pvkube-'))
  server = await fakeServer((_, response) => reply(response, 200, { items: [] }))
})
afterEach(async () => {
  await server.close()
  rmSync(dir, { recursive: true })
})

function writeText(name: string, text: string): string {
  const file = join(dir, name)
  writeFileSync(file, text)
  return file
}

const write = (name: string, config: unknown) => writeText(name, JSON.stringify(config))

const caData = () => readFileSync(join(server.dataDir, 'pki', 'ca.crt')).toString('base64')

/** A kubeconfig with two contexts of one server: `here` in namespace shop, and `there`. */
function kubeconfig(user: object, change: object = {}): string {
  const cluster = { server: `https://${server.address}`, 'certificate-authority-data': caData() }
  return write('config', {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'here' },
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
    contexts: [
      { name: 'here', context: { cluster: 'c', user: 'u', namespace: 'shop' } },
      { name: 'there', context: { cluster: 'c', user: 'u' } },
    ],
    ...change,
  })
}

const asPlugin = (argv: string[], env: Record<string, string> = {}) => runCommand(argv, { plugin: true, env })
const urls = () => server.seen.map(({ url }) => url.split('?')[0])
const vms = (namespace: string) => `/apis/plasmavmc.io/v1alpha1/namespaces/${namespace}/virtualmachines`

test('called by kubectl it is the server, the namespace and the token that kubectl would use', async () => {
  const KUBECONFIG = kubeconfig({ token: 'secret' })
  expect(await asPlugin(['get', 'vms'], { KUBECONFIG })).toMatchObject({ code: 0 })
  expect(await asPlugin(['start', 'web', '-n', 'other'], { KUBECONFIG })).toMatchObject({ code: 0 })
  expect(await asPlugin(['start', 'web', '--context', 'there'], { KUBECONFIG })).toMatchObject({ code: 0 })
  expect(await asPlugin(['--kubeconfig', KUBECONFIG, 'start', 'web'])).toMatchObject({ code: 0 })
  expect(urls()).toEqual([
    vms('shop'),
    `${vms('other')}/web/start`,
    `${vms('default')}/web/start`,
    `${vms('shop')}/web/start`,
  ])
  expect(new Set(server.seen.map(({ headers }) => headers.authorization))).toEqual(new Set(['Bearer secret']))
})

test('a client certificate needs no token beside it', async () => {
  const own = (name: string) => readFileSync(join(server.dataDir, 'pki', name)).toString('base64')
  const user = { 'client-certificate-data': own('server.crt'), 'client-key-data': own('server.key') }
  expect(await asPlugin(['get', 'vms'], { KUBECONFIG: kubeconfig(user) })).toMatchObject({ code: 0 })
  expect(server.seen.map(({ headers }) => headers.authorization)).toEqual([undefined])
})

test('by its own name it does so where a kubeconfig is named', async () => {
  const file = kubeconfig({ token: 'secret' })
  expect(await runCommand(['get', 'vms', '--kubeconfig', file])).toMatchObject({ code: 0 })
  expect(urls()).toEqual([vms('shop')])
  expect(await runCommand(['get', 'vms'], { env: { KUBECONFIG: file } })).toMatchObject({ code: 1 })
})

test('a console takes the same way', async () => {
  server.onSocket = (socket) => socket.send('login: ')
  const KUBECONFIG = kubeconfig({ token: 'secret' })
  expect(await asPlugin(['console', 'web'], { KUBECONFIG })).toEqual({ code: 0, out: 'login: ', err: '' })
})

test('an exec plugin is asked as kubectl asks it, and once for one command', async () => {
  const script = join(dir, 'login')
  const lines = [
    '#!/bin/sh',
    `echo "$KUBERNETES_EXEC_INFO $EXTRA $1 $HOME" >> ${join(dir, 'asked')}`,
    `echo '{"kind":"ExecCredential","status":{"token":"t1","expirationTimestamp":"2099-01-01T00:00:00Z"}}'`,
  ]
  writeFileSync(script, lines.join('\n'))
  chmodSync(script, 0o755)
  // Relative to the kubeconfig, as kubectl takes it.
  const exec = {
    ...{ apiVersion: 'client.authentication.k8s.io/v1', command: './login', args: ['x'] },
    ...{ env: [{ name: 'EXTRA', value: 'more' }], interactiveMode: 'IfAvailable' },
  }
  const KUBECONFIG = kubeconfig({ exec })
  expect(
    await asPlugin(['get', 'vm,hosts'], { KUBECONFIG, HOME: '/h', PATH: process.env['PATH'] ?? '' }),
  ).toMatchObject({
    code: 0,
  })
  expect(server.seen.every(({ headers }) => headers.authorization === 'Bearer t1')).toBe(true)
  const [asked, ...more] = readFileSync(join(dir, 'asked'), 'utf8').trim().split('\n')
  expect(more).toEqual([])
  expect(asked).toMatch(/more x \/h$/)
  expect(JSON.parse(asked!.slice(0, asked!.lastIndexOf('}') + 1))).toEqual({
    ...{
      kind: 'ExecCredential',
      apiVersion: 'client.authentication.k8s.io/v1',
      spec: { interactive: false },
    },
  })
})

test('an exec plugin that fails is shown with its hint', async () => {
  const exec = { command: '/nonexistent/login', installHint: 'install login first' }
  const { code, err } = await asPlugin(['get', 'vms'], { KUBECONFIG: kubeconfig({ exec }) })
  expect({ code, err }).toEqual({
    code: 1,
    err: expect.stringMatching(/exec plugin.*\n?.*install login first/s),
  })
})

test('several files are one kubeconfig: the first that names something wins', async () => {
  const first = write('first', {
    'current-context': 'there',
    users: [{ name: 'u', user: { token: 'first' } }],
  })
  const KUBECONFIG = `${first}:${join(dir, 'missing')}:${kubeconfig({ token: 'second' })}`
  expect(await asPlugin(['get', 'vms'], { KUBECONFIG })).toMatchObject({ code: 0 })
  expect(urls()).toEqual([vms('default')])
  expect(server.seen[0]?.headers.authorization).toBe('Bearer first')
})

test('files that it names lie beside it', () => {
  const user = { tokenFile: 'tokens/a', exec: { command: 'login' } }
  const cluster = { server: 'https://h', 'certificate-authority': 'ca.crt' }
  const file = kubeconfig(user, { clusters: [{ name: 'c', cluster }] })
  expect(readKubeconfig([file], undefined)).toMatchObject({
    cluster: { 'certificate-authority': join(dir, 'ca.crt') },
    user: { tokenFile: join(dir, 'tokens/a'), exec: { command: 'login' } },
  })
  expect(kubeFiles(undefined, { HOME: '/h' })).toEqual(['/h/.kube/config'])
})

test.each([
  ['no file', () => '/nonexistent/config', /can't be read/],
  ['no YAML', () => writeText('x', 'a: ['), /is not YAML/],
  ['a list', () => write('x', []), /is no kubeconfig: it is not an object of kind Config/],
  [
    'a text',
    () => writeText('readme', '# Title\n\n- a: b: c\n  `x`\n'),
    /is no kubeconfig: .*\nmake one with/,
  ],
  [
    'a manifest',
    () => write('vm', { kind: 'VirtualMachine' }),
    /is no kubeconfig: it is not an object of kind Config/,
  ],
  ['no current context', () => write('x', {}), /no current context/],
  ['a context that is not there', () => kubeconfig({}, { 'current-context': 'no' }), /no context "no"/],
  ['a cluster that is not there', () => kubeconfig({}, { clusters: [] }), /no cluster "c"/],
  ['no credentials', () => kubeconfig({}), /neither a token nor an exec plugin/],
  [
    'plain HTTP',
    () => kubeconfig({ token: 'x' }, { clusters: [{ name: 'c', cluster: { server: 'http://h' } }] }),
    /no https URL/,
  ],
  [
    'a proxy',
    () =>
      kubeconfig(
        { token: 'x' },
        {
          clusters: [{ name: 'c', cluster: { server: 'https://h', 'proxy-url': 'http://p' } }],
        },
      ),
    /proxy/,
  ],
])('with %s it says so, and commands that need no server go on', async (_, file, message) => {
  const KUBECONFIG = file()
  const { code, err } = await asPlugin(['get', 'vms'], { KUBECONFIG })
  expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(message) })
  expect(await asPlugin(['explain', 'vm'], { KUBECONFIG })).toMatchObject({ code: 0 })
})

test('help names it as people call it', async () => {
  expect((await asPlugin(['help'])).out).toContain('Usage: kubectl plasmavmc')
  expect((await runCommand(['help'])).out).toContain('Usage: plasmavmc')
})

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { chmod, readFile, rm, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { readCredentialsFile } from '../../src/auth/credentials.ts'
import { openClient, warningsOf } from '../../src/cli/client.ts'
import { parseAddress } from '../../src/cli/connection.ts'
import { connectionError } from '../../src/cli/http.ts'
import { lines } from '../../src/cli/lines.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { fakeServer, refuse, reply, runCommand, serving } from './fake-server.ts'

const vms = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'
const vm = (name: string, more: object = {}) => ({
  apiVersion: 'plasmavmc.io/v1alpha1',
  kind: 'VirtualMachine',
  metadata: { name, namespace: 'default', uid: `uid-${name}`, resourceVersion: '5' },
  ...more,
})

describe('errors', () => {
  test('a Status is shown as kubectl shows it, once, with its causes; exit 1', async () => {
    const causes = [{ reason: 'FieldValueInvalid', field: 'spec.memory', message: 'must be a quantity' }]
    const s = await serving((_, r) => refuse(r, 422, 'Invalid', 'vm "a" is invalid', { causes }))
    const { code, out, err } = await s.run(['start', 'a'])
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err).toBe('Error from server (Invalid): vm "a" is invalid\n  spec.memory: must be a quantity\n')
    expect(s.seen).toHaveLength(1)
  })

  test('with -o json it is the Status itself', async () => {
    const s = await serving((_, r) => refuse(r, 404, 'NotFound', 'no such vm'))
    const { code, err } = await s.run(['get', 'vm', 'x', '-o', 'json'])
    expect(code).toBe(1)
    expect(JSON.parse(err)).toMatchObject({ kind: 'Status', reason: 'NotFound', code: 404 })
  })

  test('an answer that is no Status is shown, not hidden', async () => {
    const s = await serving((_, r) => r.writeHead(502).end('bad gateway'))
    expect((await s.run(['get', 'vms'])).err).toContain('HTTP 502: bad gateway')
  })

  test('no server says so and how to start one', async () => {
    const s = await serving(() => {})
    const { code, err } = await s.run(['get', 'vms'], { server: '127.0.0.1:1' })
    expect(code).toBe(1)
    expect(err).toMatch(
      /no PlasmaVMC server answers on 127\.0\.0\.1:1 \(ECONNREFUSED\)\nstart one with 'plasmavmc serve/,
    )
  })

  test('another program on the port is told as such', async () => {
    const s = await serving(() => {})
    const plain = createServer((_, r) => r.end('hello')).listen(0, '127.0.0.1')
    await once(plain, 'listening')
    const address = `127.0.0.1:${(plain.address() as AddressInfo).port}`
    for (const argv of [
      ['get', 'vms'],
      ['console', 'web'],
    ]) {
      const { code, err } = await s.run(argv, { server: address })
      expect(code).toBe(1)
      expect(err).toMatch(
        `error: what listens on ${address} does not speak TLS: is it another program?\nlook who`,
      )
    }
    plain.close()
  })

  test('a name that nobody knows is told as such, and no server is advised to listen on a name', async () => {
    const s = await serving(() => {})
    const { err } = await s.run(['get', 'vms'], { server: 'plasmavmc.invalid' })
    expect(err).toMatch(/the name "plasmavmc\.invalid" (is not known|could not be looked up)/)
    expect(err).not.toContain('plasmavmc serve')
    const refused = Object.assign(new Error('x'), { code: 'ECONNREFUSED' })
    const hint = (address: string, flags: string) => connectionError(refused, address, flags).hint
    expect(hint('foo:7443', '--server foo')).toMatch(/^start one on that host, or name another/)
    expect(hint('10.0.0.1:7443', '--data-dir /x --server 10.0.0.1')).toMatch(
      /^start one with 'plasmavmc serve --data-dir \/x --listen 10\.0\.0\.1:7443', or/,
    )
    expect(hint('[::1]:1', '--server [::1]:1')).toContain('--listen [::1]:1')
    expect(hint('foo:7443', '--kubeconfig x')).not.toContain('serve')
  })

  test.each([
    ['InvalidClientTokenId: the access key is disabled', /key enable ID/],
    ['ExpiredToken: the access key has expired', /key rotate ID/],
    ['ExpiredToken: the bearer token has expired: get another one', /clock is right/],
    ['SignatureDoesNotMatch: no', /secret in the credentials/],
    ['InvalidClientTokenId: no such key', /not known to this server/],
  ])('"%s" is followed by fitting advice', async (message, advice) => {
    const s = await serving((_, r) => refuse(r, 401, 'Unauthorized', message))
    const { err } = await s.run(['get', 'vms'])
    expect(err).toMatch(advice)
    if (!message.includes('no such')) expect(err).not.toContain('not known to this server')
  })

  test('no data directory says so, and a missing key, too', async () => {
    const none = await runCommand(['get', 'vms', '--data-dir', '/nonexistent/data'])
    expect(none).toMatchObject({ code: 1, err: expect.stringContaining('no server was started here') })
    const s = await serving(() => {})
    await rm(join(s.dataDir, 'credentials'))
    expect((await s.run(['get', 'vms'])).err).toContain('credentials')
  })

  test('a server of another CA is not trusted', async () => {
    const other = await fakeServer((_, r) => reply(r, 200, {}))
    const s = await serving(() => {})
    const { err } = await s.run(['get', 'vms'], { server: other.address })
    await other.close()
    expect(err).toContain('is not the one this CA vouches for')
    expect(other.seen).toHaveLength(0)
  })

  test('deadlines hold for the head of an answer and for its body', async () => {
    const s = await serving((seen, r) => {
      if (seen.url === '/whole') reply(r, 200, {})
      else if (seen.url === '/body') r.writeHead(200).write('{')
    })
    const { host, port } = parseAddress(s.address)
    const client = openClient({ host, port, dataDir: s.dataDir, flags: '' }, systemClock)
    // That a connection has to be made takes none of the time that is waited for an answer below.
    await client.json('GET', '/whole')
    for (const path of ['/head', '/body']) {
      await expect(client.json('GET', path, { timeoutMs: 300 })).rejects.toMatchObject({ code: 'Timeout' })
    }
    client.close()
    expect(s.seen).toHaveLength(3)
  })
})

test.each([
  [[], 2],
  [['help'], 0],
  [['get', '--help'], 0],
  [['frobnicate'], 2],
  [['get'], 2],
  [['get', 'pods'], 2],
  [['get', 'vms', '-o', 'xml'], 2],
  [['get', 'vms', '--nonsense'], 2],
  [['wait', 'vm', 'a'], 2],
  [['apply'], 2],
  [['apply', '-f', 'x.yaml', '--prune'], 2],
  [['delete', 'vm'], 2],
  [['logs', 'a', '--tail', 'x'], 2],
  [['get', 'vms', '--server', 'http://x'], 2],
] as [string[], number][])('exit code of %j is %i', async (argv, code) => {
  expect((await runCommand(argv)).code).toBe(code)
})

test('requests are signed and say who asks', async () => {
  const s = await serving((_, r) => reply(r, 200, { rows: [] }))
  await s.run(['get', 'vms', '-l', 'a b,c=d'])
  const [seen] = s.seen
  expect(seen?.url).toBe(`${vms}?labelSelector=a%20b%2Cc%3Dd`)
  expect(seen?.headers['authorization']).toMatch(
    /^AWS4-HMAC-SHA256 Credential=PVMCTEST\/\d{8}\/local\/plasmavmc/,
  )
})

test('get prints the server’s table; wide has all columns, -A the namespace', async () => {
  const columnDefinitions = [{ name: 'Name' }, { name: 'Status' }, { name: 'PID', priority: 1 }]
  const rows = [{ cells: ['web', 'Running', 7], object: vm('web') }]
  const s = await serving((_, r) => reply(r, 200, { kind: 'Table', columnDefinitions, rows }))
  expect((await s.run(['get', 'vms'])).out).toBe('NAME   STATUS\nweb    Running\n')
  expect((await s.run(['get', 'vms', '-A', '-o', 'wide'])).out).toBe(
    'NAMESPACE   NAME   STATUS    PID\ndefault     web    Running   7\n',
  )
  expect(s.seen[0]?.headers.accept).toContain('as=Table')
})

test('apply creates, configures, leaves alone, and says which', async () => {
  let stored: Record<string, unknown> | undefined
  const s = await serving((seen, r) => {
    const body = seen.body === '' ? undefined : JSON.parse(seen.body)
    if (seen.method === 'GET') return stored ? reply(r, 200, stored) : refuse(r, 404, 'NotFound', 'none')
    if (seen.method === 'POST') stored = { ...body, metadata: { ...body.metadata, resourceVersion: '1' } }
    else
      stored = {
        ...stored,
        spec: body.spec,
        metadata: { ...(stored?.['metadata'] as object), resourceVersion: '2' },
      }
    reply(r, 200, stored)
  })
  const apply = (memory: string, ...more: string[]) =>
    s.run(['apply', '-f', '-', ...more], {
      stdin: JSON.stringify(vm('web', { metadata: { name: 'web' }, spec: { memory } })),
    })
  const name = 'virtualmachine.plasmavmc.io/web'
  expect((await apply('1Gi', '--dry-run=client')).out).toBe(`${name} created (dry run)\n`)
  expect((await apply('1Gi')).out).toBe(`${name} created\n`)
  expect((await apply('1Gi')).out).toBe(`${name} unchanged\n`)
  expect((await apply('2Gi')).out).toBe(`${name} configured\n`)
  const patch = s.seen.find((x) => x.method === 'PATCH')
  expect(patch?.headers['content-type']).toBe('application/merge-patch+json')
  expect(patch?.url).toContain('fieldValidation=Strict')
  expect(JSON.parse(patch?.body ?? '').spec).toEqual({ memory: '2Gi' })
})

test('apply warns of an object that is being deleted', async () => {
  const dying = vm('web', { metadata: { ...vm('web').metadata, deletionTimestamp: '2026-01-01T00:00:00Z' } })
  const s = await serving((_, r) => reply(r, 200, dying))
  const stdin = JSON.stringify(vm('web', { metadata: { name: 'web' }, spec: { memory: '1Gi' } }))
  for (const more of [[], ['--server-side']]) {
    const { code, err } = await s.run(['apply', '-f', '-', ...more], { stdin })
    expect({ code, err }).toEqual({
      code: 0,
      err: expect.stringMatching(
        /^Warning: virtualmachine\.plasmavmc\.io\/web is being deleted, .* wait vm web/,
      ),
    })
  }
})

test('an address without a port has the default one', () => {
  const port = (text: string) => parseAddress(text).port
  expect(['foo', '10.0.0.1', '[::1]', 'foo:1', 'foo:443', 'https://foo', 'https://foo:7'].map(port)).toEqual([
    ...[7443, 7443, 7443, 1, 443, 443, 7],
  ])
})

/** A list of one object, which has not changed for long. */
const only = (object: object) => ({ metadata: { resourceVersion: '9000' }, items: [object] })

test('wait watches from the list it saw, and tells how it stands when time is up', async () => {
  const s = await serving((seen, r) => {
    if (!seen.url.includes('watch=true'))
      return reply(r, 200, only(vm('a', { status: { phase: 'Starting' } })))
    r.writeHead(200)
    r.write(`${JSON.stringify({ type: 'MODIFIED', object: vm('a', { status: { phase: 'Running' } }) })}\n`)
  })
  const running = await s.run(['wait', 'vm', 'a', '--for=jsonpath={.status.phase}=Running'])
  expect(running).toMatchObject({ code: 0, out: 'virtualmachine.plasmavmc.io/a condition met\n' })
  expect(s.seen[0]?.url).toContain('fieldSelector=metadata.name%3Da')
  // What followed the object's own version may be forgotten.
  expect(s.seen[1]?.url).toContain('resourceVersion=9000')
  const late = await s.run(['wait', 'vm/a', '--for=delete', '--timeout=1s'])
  expect(late.code).toBe(1)
  expect(late.err).toContain('timed out after 1 s waiting for its deletion; a is Running')
})

test('delete waits and says what holds the object', async () => {
  const metadata = { ...vm('a').metadata, deletionTimestamp: 'x', finalizers: ['plasmavmc.io/host-cleanup'] }
  let goes = false
  const s = await serving((seen, r) => {
    const going = vm('a', { metadata, status: { phase: 'Terminating' } })
    if (seen.method === 'DELETE') return reply(r, 200, going)
    if (!seen.url.includes('watch=true')) return reply(r, 200, only(going))
    r.writeHead(200)
    if (goes) r.end(`${JSON.stringify({ type: 'DELETED', object: vm('a') })}\n`)
    else r.flushHeaders()
  })
  const late = await s.run(['delete', 'vm', 'a', '--timeout=100ms'])
  expect(late.code).toBe(1)
  expect(late.err).toContain('a is Terminating; held by finalizer plasmavmc.io/host-cleanup')
  goes = true
  expect(await s.run(['delete', 'vm', 'a'])).toEqual({
    code: 0,
    out: 'virtualmachine.plasmavmc.io "a" deleted\n',
    err: '',
  })
})

test('adopt posts the launch record’s manifest, keeps the uid and says on which host it runs', async () => {
  const manifest = JSON.stringify(vm('lost'))
  const orphans = [
    { uid: 'abc-1', pid: 42, name: 'default/lost', manifest },
    { uid: 'abd', pid: 43, name: 'x/y' },
  ]
  const host = { metadata: { name: 'h1' }, status: { orphans } }
  const s = await serving((seen, r) => reply(r, 200, seen.method === 'GET' ? { items: [host] } : vm('lost')))
  expect((await s.run(['orphans'])).out).toMatch(/^UID +HOST +PID +NAME +LAUNCHED +ADOPTABLE\nabc-1 +h1 +42/)
  expect((await s.run(['adopt', 'abc'])).out).toContain('adopted (QEMU 42 on h1)')
  expect(s.seen.at(-1)).toMatchObject({
    method: 'POST',
    url: `${vms}?restoreUid=true&fieldManager=plasmavmc`,
  })
  const { metadata, ...rest } = vm('lost')
  // Whoever places machines must know from the first moment that this one runs, and where.
  const annotations = { 'plasmavmc.io/adopted-from': 'h1' }
  expect(JSON.parse(s.seen.at(-1)?.body ?? '')).toEqual({ ...rest, metadata: { ...metadata, annotations } })
  expect(await s.run(['adopt', 'abd'])).toMatchObject({
    code: 1,
    err: expect.stringContaining('no launch record'),
  })
  expect((await s.run(['adopt', 'ab'])).code).toBe(2)
})

test('kubeconfig calls this program for tokens', async () => {
  const s = await serving((_, r) => refuse(r, 404, 'NotFound', 'no such path'))
  const config = JSON.parse((await s.run(['kubeconfig', '-o', 'json'])).out)
  expect(config.clusters[0].cluster.server).toBe(`https://${s.address}`)
  expect(config.users[0].user.exec).toMatchObject({
    command: '/opt/plasmavmc/bin/plasmavmc',
    args: ['token', '--data-dir', s.dataDir, '--server', s.address],
  })
  const credential = JSON.parse((await s.run(['token'])).out)
  expect(credential).toMatchObject({
    kind: 'ExecCredential',
    status: { token: expect.stringMatching(/^plasmavmc-v1\./) },
  })
  expect((await s.run(['token', '--raw'])).out).toMatch(/^plasmavmc-v1\.[\w-]+\n$/)
  // A kubeconfig asks which cluster it is for; a token is made without asking.
  expect(s.seen.map(({ url }) => url)).toEqual(['/version'])
})

test('kubeconfig fails where the credentials can not be read: it asked nobody', async () => {
  const s = await serving((_, r) => reply(r, 200, {}))
  await chmod(join(s.dataDir, 'credentials'), 0o644)
  const { code, out, err } = await s.run(['kubeconfig'])
  expect({ code, out }).toEqual({ code: 1, out: '' })
  expect(err).toMatch(/may be read by others \(mode 644\)\nchmod 600 /)
  expect(err).not.toContain('Note')
})

test('the ways that docs and help tell to keep a new key make a file that is not refused', async () => {
  const access = await readFile(join(import.meta.dirname, '../../docs/access.md'), 'utf8')
  const help = (await runCommand(['key', '--help'])).out
  const s = await serving(() => {})
  const profile = '[alice]\naws_access_key_id = A\naws_secret_access_key = B\n'
  for (const text of [access, help]) {
    const paste = text.split('\n').find((line) => line.includes('key create alice')) ?? 'false'
    const file = join(s.dataDir, 'credentials')
    await rm(file, { force: true })
    const shell = `umask 022; plasmavmc() { printf '${profile.replaceAll('\n', '\\n')}'; }; ${paste}`
    await promisify(execFile)('bash', ['-c', shell], { cwd: s.dataDir })
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(readCredentialsFile(file).get('alice')).toEqual({ accessKeyId: 'A', secretAccessKey: 'B' })
  }
})

test('kubeconfig binds its tokens to the cluster that the server says it is, where it does', async () => {
  const id = 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'
  let said: unknown = { clusterId: id }
  const s = await serving((_seen, answer) => answer.end(JSON.stringify(said)))
  const written = async () => {
    const { out, err } = await s.run(['kubeconfig', '-o', 'json'])
    return { args: JSON.parse(out).users[0].user.exec.args.slice(5), err }
  }
  expect(await written()).toEqual({ args: ['--cluster', id], err: '' })
  for (const odd of [{}, { clusterId: 7 }, { clusterId: '--server evil' }, null, 'x']) {
    said = odd
    expect(await written()).toEqual({ args: [], err: expect.stringMatching(/^Note: .* which cluster/) })
  }
  const [free, bound] = [await s.run(['token', '--raw']), await s.run(['token', '--raw', '--cluster', id])]
  const urlOf = ({ out }: { out: string }) => Buffer.from(out.split('.')[1] ?? '', 'base64url').toString()
  expect(urlOf(free)).toMatch(/X-Amz-SignedHeaders=host$/)
  expect(urlOf(bound)).toMatch(/X-Amz-SignedHeaders=host%3Bx-plasmavmc-cluster$/)
  expect(await s.run(['token', '--cluster', 'a b'])).toMatchObject({
    ...{ code: 2, err: expect.stringContaining('--cluster: "a b" is no cluster') },
  })
})

test('warnings are those of the header', () => {
  expect(warningsOf('299 - "unknown field \\"x\\"", 299 - "two"')).toEqual(['unknown field "x"', 'two'])
  expect(warningsOf(undefined)).toEqual([])
})

test('lines survive any cutting of their bytes', async () => {
  const bytes = Buffer.from('{"a":"ü€😀"}\n\nsecond\nunfinished')
  async function* single() {
    for (const byte of bytes) yield Uint8Array.of(byte)
  }
  expect(await Array.fromAsync(lines(single()))).toEqual(['{"a":"ü€😀"}', 'second'])
})

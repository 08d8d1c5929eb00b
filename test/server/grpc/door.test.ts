import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { connect as connectHttp2 } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ChannelCredentials, credentials, status } from '@grpc/grpc-js'
import { expect, onTestFinished, test } from 'vitest'
import { authenticate } from '../../../src/auth/authenticate.ts'
import { bootstrapIdentity, mastersGroup } from '../../../src/auth/identity.ts'
import { makeToken } from '../../../src/auth/token.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { defaultGrpcLimits } from '../../../src/server/grpc/limits.ts'
import { isLoopback } from '../../../src/server/grpc/listen.ts'
import { ensurePki } from '../../../src/server/pki.ts'
import { type GrpcLab, grpcLab, VmClient } from './fixture.ts'
import { ask, reflected, type Version } from './reflect.ts'

async function open(change: Parameters<typeof grpcLab>[0] = {}): Promise<GrpcLab> {
  const lab = await grpcLab(change)
  onTestFinished(() => lab.close())
  return lab
}

test('nobody gets in without one bearer token', async () => {
  const lab = await open()
  const nobody = await lab.client.refusal('ListVms', {}, { token: null })
  expect(nobody.code).toBe(status.UNAUTHENTICATED)
  expect(nobody.details).toMatch(/^MissingAuthenticationToken: .*grpcurl -H/)
  expect((await lab.client.refusal('ListVms', {}, { token: 'wrong' })).code).toBe(status.UNAUTHENTICATED)
  const watch = lab.client.watch({}, null)
  const [error] = await once(watch, 'error')
  expect(error.code).toBe(status.UNAUTHENTICATED)
  await expect(ask(lab.address, { listServices: '' }, {})).rejects.toMatchObject({
    code: status.UNAUTHENTICATED,
  })
  expect(lab.audits.map(({ user, responseStatus }) => [user, responseStatus])).toEqual(
    Array(4).fill([
      { username: 'system:anonymous', groups: ['system:unauthenticated'] },
      { code: 401, reason: 'Unauthorized' },
    ]),
  )
})

test('the token is that of the REST API, with its clock and its key', async () => {
  const key = { accessKeyId: 'PVMC0000000000000001', secretAccessKey: 's'.repeat(40) }
  let now = Date.now()
  const lab = await open({
    authenticate: (request) =>
      authenticate(request, {
        secretOf: (id) =>
          id === key.accessKeyId ? { secret: key.secretAccessKey, identity: bootstrapIdentity } : undefined,
        ...{ now, region: 'local', service: 'plasmavmc' },
      }),
  })
  const { token } = makeToken({ host: '127.0.0.1:7443', credentials: key, now })
  const tryIt = (text: string) => lab.client.refusal('GetCapabilities', {}, { token: text })
  // In: there is no such Host.
  expect((await tryIt(token)).code).toBe(status.NOT_FOUND)
  const changed = `${token.slice(0, -3)}${token.at(-3) === 'A' ? 'B' : 'A'}${token.slice(-2)}`
  expect((await tryIt(changed)).code).toBe(status.UNAUTHENTICATED)
  const other = makeToken({ host: 'h', credentials: { ...key, secretAccessKey: 'x'.repeat(40) }, now })
  expect((await tryIt(other.token)).details).toMatch(/^SignatureDoesNotMatch/)
  now += 901_000
  expect((await tryIt(token)).details).toMatch(/^ExpiredToken/)
})

test('whoever may do nothing learns nothing, and it is recorded', async () => {
  const lab = await open()
  const { id } = await lab.client.call('CreateVm', { name: 'secret' })
  const refusal = async (method: string, request: object) => {
    const { code, details } = await lab.client.refusal(method, request, { token: 'guest' })
    expect(code).toBe(status.PERMISSION_DENIED)
    return details
  }
  const unknown = crypto.randomUUID()
  const words = await refusal('GetVm', { id })
  expect(words).not.toContain('secret')
  expect((await refusal('GetVm', { id: unknown })).replaceAll(unknown, id)).toBe(words)
  expect(await refusal('StopVm', { id })).toContain('cannot create resource "virtualmachines/stop"')
  expect(await refusal('DeleteVm', { id: 'default/secret' })).toContain('cannot delete')
  expect(await refusal('CreateVm', { name: 'x' })).toContain('cannot create')
  expect(await refusal('ListVms', {})).toContain('cannot list')
  expect(await refusal('GetCapabilities', {})).toContain('cannot get resource "hosts"')
  const [error] = await once(lab.client.watch({}, 'guest'), 'error')
  expect(error).toMatchObject({ code: status.PERMISSION_DENIED })
  expect((await lab.objects.list(VirtualMachine)).items).toHaveLength(1)
  const records = lab.audits.map(({ verb, requestURI, responseStatus, objectRef }) => ({
    ...{ verb, requestURI, objectRef, code: (responseStatus as { code: number }).code },
  }))
  const machines = { apiGroup: 'plasmavmc.io', resource: 'virtualmachines' }
  const path = '/plasmavmc.VmService'
  expect(records).toEqual([
    {
      verb: 'create',
      requestURI: `${path}/CreateVm`,
      objectRef: { ...machines, namespace: 'default' },
      code: 200,
    },
    {
      ...{ verb: 'get', requestURI: `${path}/GetVm`, code: 403 },
      objectRef: { ...machines, namespace: 'default', name: 'secret' },
    },
    { verb: 'get', requestURI: `${path}/GetVm`, objectRef: { ...machines, name: unknown }, code: 403 },
    {
      ...{ verb: 'create', requestURI: `${path}/StopVm`, code: 403 },
      objectRef: { ...machines, subresource: 'stop', namespace: 'default', name: 'secret' },
    },
    {
      ...{ verb: 'delete', requestURI: `${path}/DeleteVm`, code: 403 },
      objectRef: { ...machines, namespace: 'default', name: 'secret' },
    },
    {
      verb: 'create',
      requestURI: `${path}/CreateVm`,
      objectRef: { ...machines, namespace: 'default' },
      code: 403,
    },
    { verb: 'list', requestURI: `${path}/ListVms`, objectRef: machines, code: 403 },
    {
      ...{ verb: 'get', requestURI: `${path}/GetCapabilities`, code: 403 },
      objectRef: { apiGroup: 'plasmavmc.io', resource: 'hosts', name: 'host-1' },
    },
    { verb: 'watch', requestURI: `${path}/WatchVms`, objectRef: machines, code: 403 },
  ])
})

test('a grant in one namespace is a grant there only', async () => {
  const lab = await open({
    authorize: (identity, verb, target) =>
      identity.groups.includes(mastersGroup) ||
      ('resource' in target && target.namespace === 'default' && verb === 'get'),
  })
  const { id } = await lab.client.call('CreateVm', { name: 'mine' })
  const asGuest = { token: 'guest' }
  expect(await lab.client.call('GetVm', { id }, asGuest)).toMatchObject({ name: 'mine' })
  for (const [method, request] of [
    ['GetVm', { id: crypto.randomUUID() }],
    ['GetVm', { id: 'other/mine' }],
    ['DeleteVm', { id }],
    ['ListVms', {}],
  ] as const)
    expect((await lab.client.refusal(method, request, asGuest)).code, method).toBe(status.PERMISSION_DENIED)
})

test.each<Version>(['v1', 'v1alpha'])(
  'reflection %s tells a stranger all that a call needs',
  async (version) => {
    const lab = await open()
    const options = { token: 'admin', version }
    const { listServicesResponse } = await ask(lab.address, { listServices: '' }, options)
    expect(listServicesResponse.service.map(({ name }: { name: string }) => name)).toEqual([
      'plasmavmc.VmService',
    ])
    const service = await reflected(lab.address, 'plasmavmc.VmService', options)
    expect(Object.keys(service)).toContain('MigrateVm')
    const { requestSerialize } = service['CreateVm']!
    const sent = requestSerialize({ name: 'test-vm', vcpus: 1, memory_mb: 512 })
    expect(sent.toString('hex')).toBe('0a07746573742d766d1001188004')
    const { errorResponse } = await ask(lab.address, { fileContainingSymbol: 'constructor.x' }, options)
    expect(errorResponse.errorCode).toBe(status.NOT_FOUND)
  },
)

test('a message beyond the limit is refused, and the connection goes on', async () => {
  const lab = await open()
  const refusal = await lab.client.refusal('CreateVm', { name: 'x', spec_json: ' '.repeat(2 << 20) })
  expect(refusal.code).toBe(status.RESOURCE_EXHAUSTED)
  await lab.client.call('ListVms')
})

test('a call that never says what it wants is ended', async () => {
  const lab = await open({ grpcLimits: { ...defaultGrpcLimits, requestMs: 100 } })
  const session = connectHttp2(`http://${lab.address}`)
  onTestFinished(() => session.destroy())
  const stream = session.request({
    ...{ ':method': 'POST', ':path': '/plasmavmc.VmService/ListVms', 'content-type': 'application/grpc' },
    ...{ te: 'trailers', authorization: 'Bearer admin' },
  })
  const [headers] = await once(stream, 'response')
  expect(headers['grpc-status']).toBe(String(status.DEADLINE_EXCEEDED))
})

test('connections have a limit, and ones that say nothing end', async () => {
  const lab = await open({ grpcLimits: { ...defaultGrpcLimits, connections: 2, idleMs: 200 } })
  const first = lab.connect()
  const second = lab.connect()
  await Promise.all([once(first, 'connect'), once(second, 'connect')])
  const third = lab.connect()
  await once(third, 'close')
  first.resume()
  second.resume()
  await Promise.all([once(first, 'close'), once(second, 'close')])
  await lab.client.call('ListVms')
})

test('what is no HTTP/2 harms nobody', async () => {
  const lab = await open()
  const socket = lab.connect()
  socket.on('error', () => {})
  socket.end('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  socket.resume()
  await once(socket, 'close')
  await lab.client.call('ListVms')
})

test('beyond this machine gRPC speaks TLS only', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'pvmc-grpc-'))
  onTestFinished(() => rm(dir, { recursive: true }))
  const pki = await ensurePki(dir, { names: [], now: Date.now() })
  const lab = await open({ host: '0.0.0.0', tls: pki })
  expect(lab.listener.tls).toBe(true)
  const address = `localhost:${lab.listener.port}`
  const withCreds = (creds: ChannelCredentials) => {
    const client = new VmClient(address, 'admin', creds)
    onTestFinished(() => client.close())
    return client
  }
  const ca = await readFile(join(dir, 'ca.crt'))
  expect(await withCreds(credentials.createSsl(ca)).call('ListVms')).toMatchObject({ vms: [] })
  const plain = await withCreds(credentials.createInsecure()).refusal('ListVms')
  expect(plain.code).toBe(status.UNAVAILABLE)
  expect(['127.0.0.1', '127.8.0.1', '::1'].map(isLoopback)).toEqual([true, true, true])
  expect(['0.0.0.0', '::', '10.0.0.1', '128.0.0.1', 'fe80::1'].map(isLoopback)).toEqual(Array(5).fill(false))
})

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import {
  Client,
  credentials,
  Metadata,
  type ServiceDefinition,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import { ask, reflected } from '../server/grpc/reflect.ts'
import { Lab, tiny } from './lab.ts'

// biome-ignore lint/suspicious/noExplicitAny: answers have many shapes
type Message = any

let lab: Lab
let address: string
let token: string
let service: ServiceDefinition

beforeAll(async () => {
  address = `127.0.0.1:${await freePort()}`
  lab = await Lab.start({ flags: ['--grpc-listen', address] })
  const printed = await lab.cli('token', '--raw')
  expect(printed).toMatchObject({ code: 0, stderr: '' })
  token = printed.stdout.trim()
  // As grpcurl does: nothing is known of the service but what it tells.
  service = await reflected(address, 'plasmavmc.VmService', { token })
})
afterAll(() => lab.close())

function metadataOf(bearer: string): Metadata {
  const metadata = new Metadata()
  metadata.set('authorization', `Bearer ${bearer}`)
  return metadata
}

function call(name: string, request: object, bearer = token): Promise<Message> {
  const client = new Client(address, credentials.createInsecure())
  const { path, requestSerialize, responseDeserialize } = service[name]!
  return new Promise<Message>((resolve, reject) => {
    client.makeUnaryRequest(
      ...([path, requestSerialize, responseDeserialize, request, metadataOf(bearer)] as const),
      { deadline: Date.now() + 30_000 },
      (error, answer) => (error ? reject(error) : resolve(answer)),
    )
  }).finally(() => client.close())
}

const codeOf = (error: ServiceError) => error.code

test("the runbook's calls make, show and end a real machine", async () => {
  for (const version of ['v1', 'v1alpha'] as const) {
    const { listServicesResponse } = await ask(address, { listServices: '' }, { token, version })
    expect(listServicesResponse.service).toEqual([{ name: 'plasmavmc.VmService' }])
  }
  const made = await call('CreateVm', { name: 'test-vm', vcpus: 1, memory_mb: 512 })
  expect(made).toMatchObject({ name: 'test-vm', vcpus: 1, memory_mb: 512 })
  const { id } = made
  await lab.running('test-vm')
  expect(await call('GetVm', { id })).toMatchObject({
    id,
    state: 'VM_STATE_RUNNING',
    ready: true,
    host: 'lab',
  })
  const { vms } = await call('ListVms', {})
  expect(vms.map((vm: Message) => vm.id)).toEqual([id])
  const [qemu] = lab.qemus(id)
  expect(qemu?.argv.join(' ')).toMatch(/-m size=512M/)

  // Nothing in it hears a power button.
  await lab.patch('test-vm', { spec: { terminationGracePeriodSeconds: 0 } })
  await call('StopVm', { id })
  await lab.sees('test-vm', 'is Stopped', (vm) => vm.status?.phase === 'Stopped')
  expect(lab.qemus(id)).toEqual([])
  expect(await call('GetVm', { id: 'default/test-vm' })).toMatchObject({ state: 'VM_STATE_STOPPED' })
  await call('StartVm', { id })
  await lab.running('test-vm')
  expect(lab.qemus(id)).toHaveLength(1)
  await expect(call('StartVm', { id }).catch(codeOf)).resolves.toBe(status.ABORTED)
  await expect(call('MigrateVm', { id }).catch(codeOf)).resolves.toBe(status.UNIMPLEMENTED)
  expect(await call('DeleteVm', { id })).toEqual({ id, gone: false })
  await lab.gone('test-vm')
  expect(lab.qemus(id)).toEqual([])
  await expect(call('GetVm', { id }).catch(codeOf)).resolves.toBe(status.NOT_FOUND)
})

test('capabilities are what this QEMU answered', async () => {
  let host: Message
  await lab.until('the Host says what its QEMU can do', async () => {
    host = (await lab.client.json<Message>('GET', '/apis/plasmavmc.io/v1alpha1/hosts/lab')).status
    return host.capabilities.includes('live-migration')
  })
  expect(await call('GetCapabilities', {})).toMatchObject({
    ...{ host: 'lab', qemu_capabilities: host.capabilities, qemu_version: host.qemuVersion },
    ...{ accelerator: 'tcg', live_migration: false },
  })
})

test('a watch follows a machine that the REST API makes', async () => {
  const client = new Client(address, credentials.createInsecure())
  const { path, requestSerialize, responseDeserialize } = service['WatchVms']!
  const stream = client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    {},
    metadataOf(token),
  )
  stream.on('error', () => {})
  try {
    const seen: string[] = []
    for await (const { type, vm } of stream as AsyncIterable<Message>) {
      if (type === 'SYNCED') await lab.create(tiny('watched'))
      if (vm?.name !== 'watched') continue
      if (seen.at(-1) !== vm.state) seen.push(vm.state)
      if (vm.state === 'VM_STATE_RUNNING') break
    }
    expect(seen[0]).toBe('VM_STATE_PENDING')
    expect(seen.at(-1)).toBe('VM_STATE_RUNNING')
  } finally {
    stream.cancel()
    client.close()
  }
  await lab.remove('watched')
  await lab.gone('watched')
})

test('nobody gets in without a token, and the audit log has who did what', async () => {
  await expect(call('ListVms', {}, 'plasmavmc-v1.x').catch(codeOf)).resolves.toBe(status.UNAUTHENTICATED)
  const records = () =>
    readFileSync(join(lab.dataDir, 'audit.log'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
  const of = (method: string) =>
    records().filter(({ requestURI }) => requestURI === `/plasmavmc.VmService/${method}`)
  await lab.until('the refusal is recorded', () => of('ListVms').length > 0)
  expect(of('ListVms')).toMatchObject([{ responseStatus: { code: 401 }, sourceIPs: ['127.0.0.1'] }])
  expect(of('CreateVm')).toMatchObject([{ user: { username: 'admin' }, verb: 'create' }])
  expect(of('GetVm')).toEqual([])
})

test('another server that asks for its address does not start', async () => {
  const folders = ['--data-dir', join(lab.dir, 'd2'), '--run-dir', join(lab.dir, 'r2')]
  const own = [...folders, '--listen', `127.0.0.1:${await freePort()}`, '--host-name', 'two']
  const refused = await lab.cli('serve', ...own, '--grpc-listen', address)
  expect(refused).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(`--grpc-listen: ${address} is in use`),
  })
})

test('it ends with the server', async () => {
  const socket = connect(Number(address.split(':')[1]), '127.0.0.1')
  await once(socket, 'connect')
  const closed = once(socket, 'close')
  socket.resume()
  await lab.end('SIGTERM')
  await closed
})

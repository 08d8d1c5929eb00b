import { status } from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { Host } from '../../../src/resources/kinds.ts'
import { phases, VirtualMachine, vmFinalizer, vmStatus } from '../../../src/resources/vm.ts'
import { defaultFairLimits, FairQueue } from '../../../src/server/fair.ts'
import { defaultGrpcLimits } from '../../../src/server/grpc/limits.ts'
import { stateOf } from '../../../src/server/grpc/vm-message.ts'
import { liveMigration } from '../../../src/server/grpc/vm-service.ts'
import protocol from '../../../src/server/grpc/vmservice.json' with { type: 'json' }
import { Prometheus } from '../../../src/server/prometheus.ts'
import { ApiError } from '../../../src/store/errors.ts'
import type { KvObjects } from '../../../src/store/kv-objects.ts'
import { type GrpcLab, grpcLab, next } from './fixture.ts'

let lab: GrpcLab
beforeAll(async () => {
  lab = await grpcLab()
})
afterAll(() => lab.close())

/** Makes a machine look as a host would have it. */
async function report(name: string, change: object): Promise<void> {
  const vm = await lab.objects.get(VirtualMachine, { namespace: 'default', name })
  await lab.objects.updateStatus(VirtualMachine, { ...vm, status: vmStatus.parse(change) })
}

const process = {
  ...{ pid: 7, startTime: 1, bootId: 'b', launchId: 'l', accelerator: 'tcg' },
  ...{ startedAt: '2026-01-02T03:04:05Z', specHash: 'h' },
}

test('what is created is the object that the REST API has', async () => {
  const made = await lab.client.call('CreateVm', { name: 'test-vm', vcpus: 1, memory_mb: 512 })
  expect(made).toMatchObject({
    ...{ name: 'test-vm', namespace: 'default', vcpus: 1, memory_mb: 512 },
    ...{ state: 'VM_STATE_PENDING', run_strategy: 'Always', ready: false },
  })
  const vm = await lab.objects.get(VirtualMachine, { namespace: 'default', name: 'test-vm' })
  expect(vm.metadata.uid).toBe(made.id)
  expect(vm.spec).toMatchObject({ cpu: { cores: 1 }, memory: '512Mi' })
  expect(vm.metadata.managedFields).toMatchObject([{ manager: 'grpc-node-js', operation: 'Update' }])
  expect(await lab.client.call('GetVm', { id: made.id })).toEqual(made)
  expect(await lab.client.call('GetVm', { id: 'default/test-vm' })).toEqual(made)
})

test('the rest of a spec is that of the REST API', async () => {
  const spec = { runStrategy: 'Halted', cpu: { model: 'max' }, disks: [{ name: 'root', size: '1Gi' }] }
  const request = { name: 'full', vcpus: 3, labels: { app: 'web' }, spec_json: JSON.stringify(spec) }
  const made = await lab.client.call('CreateVm', request)
  expect(made).toMatchObject({ vcpus: 3, memory_mb: 512, run_strategy: 'Halted', labels: { app: 'web' } })
  const vm = await lab.objects.get(VirtualMachine, { namespace: 'default', name: 'full' })
  expect(vm.spec).toMatchObject({ cpu: { cores: 3, model: 'max' }, disks: [{ name: 'root', size: '1Gi' }] })
})

const spec = (value: unknown) => ({ name: 'bad', spec_json: JSON.stringify(value) })

test.each([
  [{ name: '' }, /^name: Required value/],
  [{ name: 'No_Good' }, /^name: Invalid value: "No_Good"/],
  [{ name: 'bad', vcpus: 0 }, /^vcpus: .*at least 1/],
  [{ name: 'bad', vcpus: 256 }, /^vcpus: Invalid value: 256: must be at most 255/],
  [{ name: 'bad', memory_mb: 0 }, /^memory_mb: .*memory must be at least 1Mi/],
  [{ name: 'bad', namespace: 'default/x' }, /^namespace: Invalid value: "default\/x"/],
  [{ name: 'bad', labels: { 'a b': 'c' } }, /^labels: Invalid value: "a b"/],
  [{ name: 'bad', spec_json: '{' }, /^spec_json: it is not JSON/],
  [{ name: 'bad', spec_json: '[]' }, /^spec_json: must be a JSON object/],
  [{ name: 'bad', spec_json: `${'['.repeat(200)}${']'.repeat(200)}` }, /^spec_json: it is nested more than/],
  [{ name: 'bad', spec_json: '{"memory":"1Gi","memory":"2Gi"}' }, /duplicate field "spec.memory"/],
  [{ ...spec({ memory: '1Gi' }), memory_mb: 1 }, /^spec_json: memory is said by memory_mb already/],
  [{ ...spec({ cpu: { threads: 2 } }), vcpus: 2 }, /^spec_json: cpu.threads is said by vcpus already/],
  [{ ...spec({ cpu: 3 }), vcpus: 2 }, /spec.cpu: Invalid value: 3/],
  [spec({ memroy: '1Gi' }), /unknown field "spec.memroy"/],
  [spec({ disks: [{ name: 'a' }] }), /^spec.disks\[0\].size: Required value: a blank disk needs a size/],
  // Cut to what is shown, one of these leaves half of a surrogate pair, which can't be sent.
  [spec({ memory: '😀'.repeat(80) }), /^memory_mb: Invalid value: "😀/],
  [spec({ memory: `a${'😀'.repeat(80)}` }), /^memory_mb: Invalid value: "a😀/],
  [spec({ memory: '\ud800' }), /^memory_mb: Invalid value: /],
  [spec({ runStrategy: 'x'.repeat(5_000) }), /^spec.runStrategy: Unsupported value/],
])('%j is refused by the field, and nothing is made', async (request, words) => {
  const refusal = await lab.client.refusal('CreateVm', request)
  expect(refusal.details).toMatch(words)
  expect(refusal.code).toBe(status.INVALID_ARGUMENT)
  const { items } = await lab.objects.list(VirtualMachine)
  expect(items.filter(({ metadata }) => metadata.name === 'bad')).toEqual([])
})

test.each([
  ['GetVm', { id: '' }, status.INVALID_ARGUMENT, /^id: Invalid value: ""/],
  ['GetVm', { id: 'test-vm' }, status.INVALID_ARGUMENT, /namespace\/name such as default\/web/],
  ['GetVm', { id: 'default/../x' }, status.INVALID_ARGUMENT, /^id: /],
  ['GetVm', { id: 'default/none' }, status.NOT_FOUND, /"none" not found/],
  ['GetVm', { id: crypto.randomUUID() }, status.NOT_FOUND, /not found/],
  ['StopVm', { id: crypto.randomUUID() }, status.NOT_FOUND, /not found/],
  ['DeleteVm', { id: crypto.randomUUID() }, status.NOT_FOUND, /not found/],
  ['CreateVm', { name: 'a', namespace: 'nowhere' }, status.NOT_FOUND, /namespaces "nowhere" not found/],
  ['CreateVm', { name: 'test-vm' }, status.ALREADY_EXISTS, /"test-vm" already exists/],
  ['StartVm', { id: 'default/test-vm' }, status.ABORTED, /can't start test-vm/],
  ['ListVms', { label_selector: '((' }, status.INVALID_ARGUMENT, /./],
  ['ListVms', { page_token: 'x' }, status.INVALID_ARGUMENT, /continue/],
  ['ListVms', { namespace: 'A' }, status.INVALID_ARGUMENT, /^namespace: /],
  ['MigrateVm', { id: 'default/test-vm' }, status.UNIMPLEMENTED, /no live migration/],
  ['GetCapabilities', {}, status.NOT_FOUND, /hosts.plasmavmc.io "host-1" not found/],
])('%s %j fails as gRPC has it', async (method, request, code, words) => {
  const refusal = await lab.client.refusal(method, request)
  expect(refusal.details).toMatch(words)
  expect(refusal.code).toBe(code)
})

test('start and stop do what the verbs of the REST API do', async () => {
  const { id } = await lab.client.call('CreateVm', { name: 'power' })
  expect(await lab.client.call('StopVm', { id })).toMatchObject({ id, run_strategy: 'Halted' })
  expect(await lab.client.call('StartVm', { id })).toMatchObject({ id, run_strategy: 'Always' })
  const manual = await lab.client.call('CreateVm', { name: 'manual', spec_json: '{"runStrategy":"Manual"}' })
  await report('manual', { phase: 'Running', process })
  await lab.client.call('StopVm', { id: 'default/manual' })
  const vm = await lab.objects.get(VirtualMachine, { namespace: 'default', name: 'manual' })
  expect(vm.status?.request?.action).toBe('Stop')
  expect(vm.metadata.uid).toBe(manual.id)
})

test('a deletion waits for what holds the object', async () => {
  const { id } = await lab.client.call('CreateVm', { name: 'held' })
  const ref = { namespace: 'default', name: 'held' }
  const vm = await lab.objects.get(VirtualMachine, ref)
  const held = { ...vm, metadata: { ...vm.metadata, finalizers: [vmFinalizer] } }
  await lab.objects.update(VirtualMachine, held)
  expect(await lab.client.call('DeleteVm', { id })).toEqual({ id, gone: false })
  const going = await lab.client.call('GetVm', { id })
  expect(going.deletion_requested_at).toMatch(/^\d{4}-/)
  const now = await lab.objects.get(VirtualMachine, ref)
  await lab.objects.update(VirtualMachine, { ...now, metadata: { ...now.metadata, finalizers: [] } })
  expect((await lab.client.refusal('GetVm', { id })).code).toBe(status.NOT_FOUND)
  const free = await lab.client.call('CreateVm', { name: 'free' })
  expect(await lab.client.call('DeleteVm', { id: 'default/free' })).toEqual({ id: free.id, gone: true })
})

test('an id stays with its machine when another one gets its name', async () => {
  const first = await lab.client.call('CreateVm', { name: 'reborn' })
  await lab.objects.delete(VirtualMachine, { namespace: 'default', name: 'reborn' })
  const second = await lab.client.call('CreateVm', { name: 'reborn' })
  expect(second.id).not.toBe(first.id)
  for (const method of ['GetVm', 'StopVm', 'DeleteVm'])
    expect((await lab.client.refusal(method, { id: first.id })).code).toBe(status.NOT_FOUND)
  expect(await lab.client.call('GetVm', { id: second.id })).toMatchObject({ run_strategy: 'Always' })
})

test.each(['StartVm', 'StopVm', 'DeleteVm'])(
  '%s by an id does nothing to a machine that gets the name while it is on its way',
  async (method) => {
    const name = `swapped-${method.toLowerCase()}`
    const ref = { namespace: 'default', name }
    const runs = method === 'StartVm' ? 'Halted' : 'Always'
    const request = { name, spec_json: JSON.stringify({ runStrategy: runs }) }
    const own = await grpcLab()
    onTestFinished(() => own.close())
    const first = await own.client.call('CreateVm', request)
    // Looked up by its id; before it is looked at again, it is another one.
    const get = own.objects.get.bind(own.objects)
    own.objects.get = (async (kind: never, at: never) => {
      const found = await get(kind, at)
      own.objects.get = get
      await own.objects.delete(VirtualMachine, ref)
      await own.client.call('CreateVm', request)
      return found
    }) as never
    const { code } = await own.client.refusal(method, { id: first.id })
    expect([status.NOT_FOUND, status.ABORTED]).toContain(code)
    const now = await get(VirtualMachine, ref)
    expect(now.metadata.uid).not.toBe(first.id)
    expect([now.spec.runStrategy, now.status?.request, now.metadata.generation]).toEqual([runs, undefined, 1])
  },
)

test('machines that others made are found by their id, many at once', async () => {
  const made = await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      lab.objects.create(VirtualMachine, {
        ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', spec: {} },
        metadata: { name: `other-${i}`, namespace: 'default' },
      } as never),
    ),
  )
  const names = await Promise.all(
    made.map(async ({ metadata }) => (await lab.client.call('GetVm', { id: metadata.uid })).name),
  )
  expect(names).toEqual(made.map(({ metadata }) => metadata.name))
})

test('a list goes on page by page, and by labels', async () => {
  const all = await lab.client.call('ListVms', {})
  expect(all.next_page_token).toBe('')
  const names: string[] = []
  let token = ''
  do {
    const page = await lab.client.call('ListVms', { page_size: 7, page_token: token })
    expect(page.vms.length).toBeLessThanOrEqual(7)
    names.push(...page.vms.map(({ name }: { name: string }) => name))
    token = page.next_page_token
  } while (token !== '')
  expect(names).toEqual(all.vms.map(({ name }: { name: string }) => name))
  const chosen = await lab.client.call('ListVms', { label_selector: 'app=web' })
  expect(chosen.vms.map(({ name }: { name: string }) => name)).toEqual(['full'])
})

test('a page is no larger than clients take', async () => {
  const small = await grpcLab({ grpcLimits: { ...defaultGrpcLimits, answerBytes: 8_000 } })
  onTestFinished(() => small.close())
  const labels = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`label-${i}`, 'v'.repeat(60)]))
  for (let i = 0; i < 20; i += 1) await small.client.call('CreateVm', { name: `vm-${i}`, labels })
  const first = await small.client.call('ListVms')
  expect(first.vms.length).toBeGreaterThan(2)
  const ids = new Set<string>(first.vms.map(({ id }: { id: string }) => id))
  for (let token = first.next_page_token; token !== ''; ) {
    const page = await small.client.call('ListVms', { page_token: token })
    for (const { id } of page.vms) ids.add(id)
    token = page.next_page_token
  }
  expect(ids.size).toBe(20)
})

test('every phase is a state of its own', async () => {
  const { id } = await lab.client.call('CreateVm', { name: 'phases' })
  for (const phase of phases) {
    await report('phases', { phase })
    expect((await lab.client.call('GetVm', { id })).state).toBe(stateOf(phase))
  }
  const { VmState } = protocol.messages.nested.plasmavmc.nested as {
    VmState: { values: Record<string, number> }
  }
  const states = Object.keys(VmState.values)
  expect(states).toEqual(['VM_STATE_UNSPECIFIED', ...phases.map(stateOf)])
  expect(states).toContain('VM_STATE_MIGRATING')
})

test('capabilities are those of the Host', async () => {
  const head = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'Host', metadata: { name: 'host-1' }, spec: {} }
  const made = await lab.objects.create(Host, head as never)
  const reported = { qemuVersion: '7.2.22', accelerator: 'tcg', capabilities: ['live-migration', 'multifd'] }
  await lab.objects.updateStatus(Host, { ...made, status: reported } as never)
  expect(await lab.client.call('GetCapabilities')).toEqual({
    ...{ host: 'host-1', qemu_version: '7.2.22', accelerator: 'tcg' },
    ...{ qemu_capabilities: ['live-migration', 'multifd'] },
    // What MigrateVm says, too.
    ...{ live_migration: false, live_migration_reason: expect.stringContaining('no live migration') },
  })
  expect(liveMigration(['live-migration'], true)).toEqual({ live_migration: true, live_migration_reason: '' })
  expect(liveMigration(['multifd'], true)).toMatchObject({ live_migration: false })
})

test('a call is counted as the request of the REST API that it stands for', async () => {
  const metrics = new Prometheus({ clock: systemClock, log: silentLog })
  const own = await grpcLab({ metrics })
  onTestFinished(() => own.close())
  await own.client.call('CreateVm', { name: 'counted' })
  await own.client.call('StopVm', { id: 'default/counted' })
  expect((await own.client.refusal('GetVm', { id: 'default/none' })).code).toBe(status.NOT_FOUND)
  expect((await own.client.refusal('ListVms', {}, { token: 'guest' })).code).toBe(status.PERMISSION_DENIED)
  const text = await metrics.text()
  const counted = (verb: string, subresource: string, code: number) =>
    text.includes(
      `plasmavmc_apiserver_request_total{verb="${verb}",resource="virtualmachines",subresource="${subresource}",code="${code}"} 1`,
    )
  expect(counted('create', '', 200), text).toBe(true)
  expect(counted('create', 'stop', 200), text).toBe(true)
  expect(counted('get', '', 404), text).toBe(true)
  expect(counted('list', '', 403), text).toBe(true)
})

test('what somebody writes goes through their own view of the store', async () => {
  const asked: string[] = []
  const own: GrpcLab = await grpcLab({
    objectsFor: ({ name }) => {
      asked.push(name)
      return Object.assign(Object.create(own.objects) as KvObjects, {
        create: async () => {
          throw new ApiError('Forbidden', 'not by this one')
        },
        get: own.objects.get.bind(own.objects),
      })
    },
  })
  onTestFinished(() => own.close())
  const refused = await own.client.refusal('CreateVm', { name: 'other' })
  expect([refused.code, refused.details]).toEqual([
    status.PERMISSION_DENIED,
    expect.stringContaining('not by this one'),
  ])
  expect(asked).toEqual(['admin'])
})

test('calls wait for their turn, which the REST API gives too, and have its rates', async () => {
  const limits = { ...defaultFairLimits, seatsOfOne: 1, waitingOfOne: 1, burst: 2, ratePerSecond: 0.001 }
  const fair = new FairQueue(limits, systemClock)
  const own = await grpcLab({ fair, authorize: () => true })
  onTestFinished(() => own.close())
  const leave = await fair.enter('admin')
  const waits = own.client.call('ListVms')
  await expect.poll(() => fair.load.waiting).toBe(1)
  const refused = await own.client.refusal('ListVms')
  expect([refused.code, refused.details]).toEqual([
    status.RESOURCE_EXHAUSTED,
    expect.stringContaining('too many requests of admin wait'),
  ])
  leave()
  expect(await waits).toMatchObject({ vms: [] })
  expect(fair.load).toEqual({ seated: 0, waiting: 0 })
  // Watches hold no seat.
  const watch = own.client.watch()
  watch.on('error', () => {})
  await own.client.call('CreateVm', { name: 'seen' })
  await next(watch)
  expect(fair.load.seated).toBe(0)
  watch.cancel()
  for (const _ of [1, 2]) await own.client.call('ListVms', {}, { token: 'guest' })
  expect((await own.client.refusal('ListVms', {}, { token: 'guest' })).code).toBe(status.RESOURCE_EXHAUSTED)
})

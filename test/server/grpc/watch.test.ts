import { once } from 'node:events'
import { status } from '@grpc/grpc-js'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { defaultFairLimits, FairQueue } from '../../../src/server/fair.ts'
import { defaultGrpcLimits } from '../../../src/server/grpc/limits.ts'
import { Prometheus } from '../../../src/server/prometheus.ts'
import { type GrpcLab, grpcLab, next } from './fixture.ts'

async function open(change: Parameters<typeof grpcLab>[0] = {}): Promise<GrpcLab> {
  const lab = await grpcLab(change)
  onTestFinished(() => lab.close())
  return lab
}

function watching(lab: GrpcLab, request: object = {}) {
  const stream = lab.client.watch(request)
  stream.on('error', () => {})
  onTestFinished(() => stream.cancel())
  return stream
}

test('a watch shows what is there, that this was all, and what becomes of it', async () => {
  const lab = await open()
  const { id } = await lab.client.call('CreateVm', { name: 'a' })
  const stream = watching(lab)
  expect(await next(stream)).toMatchObject({ type: 'ADDED', vm: { id, name: 'a' }, resource_version: '' })
  const synced = await next(stream)
  expect(synced).toMatchObject({ type: 'SYNCED', vm: null })
  expect(synced.resource_version).toMatch(/^\d+$/)
  await lab.client.call('StopVm', { id })
  expect(await next(stream)).toMatchObject({ type: 'MODIFIED', vm: { id, run_strategy: 'Halted' } })
  await lab.client.call('CreateVm', { name: 'b' })
  const added = await next(stream)
  expect(added).toMatchObject({ type: 'ADDED', vm: { name: 'b' } })
  await lab.client.call('DeleteVm', { id })
  expect(await next(stream)).toMatchObject({ type: 'DELETED', vm: { id } })

  const later = watching(lab, { resource_version: added.resource_version })
  expect(await next(later)).toMatchObject({ type: 'SYNCED' })
  expect(await next(later)).toMatchObject({ type: 'DELETED', vm: { id } })
})

test('a watch keeps to its namespace and its labels', async () => {
  const lab = await open()
  const stream = watching(lab, { namespace: 'default', label_selector: 'app=web' })
  await next(stream)
  await lab.client.call('CreateVm', { name: 'a' })
  await lab.client.call('CreateVm', { name: 'b', labels: { app: 'web' } })
  expect(await next(stream)).toMatchObject({ type: 'ADDED', vm: { name: 'b' } })
})

test.each([
  [{ resource_version: 'x' }, status.INVALID_ARGUMENT],
  [{ namespace: 'a/b' }, status.INVALID_ARGUMENT],
  [{ label_selector: '((' }, status.INVALID_ARGUMENT],
])('a watch with %j is refused', async (request, code) => {
  const lab = await open()
  const [error] = await once(lab.client.watch(request), 'error')
  expect(error).toMatchObject({ code })
})

test('a version that is too old is out of range', async () => {
  const lab = await open({ historyLimit: 5 })
  const { resource_version } = await next(watching(lab))
  for (let i = 0; i < 20; i += 1) await lab.client.call('CreateVm', { name: `vm-${i}` })
  const old = watching(lab, { resource_version })
  await next(old)
  await expect(next(old)).rejects.toMatchObject({ code: status.OUT_OF_RANGE })
})

test('a watch is ended after its time, without an error', async () => {
  const lab = await open({ grpcLimits: { ...defaultGrpcLimits, streamMs: 100 } })
  const stream = watching(lab)
  stream.resume()
  const [end] = await once(stream, 'status')
  expect(end.code).toBe(status.OK)
})

/** Tells when the store's watch of a lab has ended. */
function endsOf(lab: GrpcLab): string[] {
  const ends: string[] = []
  const watchText = lab.objects.watchText.bind(lab.objects)
  lab.objects.watchText = async function* (kind, options) {
    try {
      yield* watchText(kind, options)
    } finally {
      ends.push('ended')
    }
  }
  return ends
}

test('a watcher that takes nothing is let go of, and hears why', async () => {
  const lab = await open({ grpcLimits: { ...defaultGrpcLimits, stalledMs: 200 } })
  const ends = endsOf(lab)
  const stream = watching(lab)
  await next(stream)
  // The window of a stream is 64 KiB: these do not go through while nobody reads.
  const labels = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`label-${i}`, 'x'.repeat(60)]))
  const metadata = { name: 'busy', namespace: 'default', labels }
  const head = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', spec: {}, metadata }
  let object = await lab.objects.create(VirtualMachine, head as never)
  for (let i = 0; i < 400; i += 1) {
    const changed = { ...object.metadata, labels: { ...labels, turn: String(i) } }
    object = await lab.objects.update(VirtualMachine, { ...object, metadata: changed })
  }
  await expect.poll(() => ends, { timeout: 10_000 }).toEqual(['ended'])
  // Calls of the same connection are not held up.
  await lab.client.call('ListVms')
  let taken = 0
  stream.on('data', () => {
    taken += 1
  })
  const ended = once(stream, 'error')
  stream.resume()
  const why = { code: status.RESOURCE_EXHAUSTED, details: expect.stringContaining('took nothing for 0.2 s') }
  expect((await ended)[0]).toMatchObject(why)
  expect(taken).toBeLessThan(200)
})

test('a client that leaves takes its watch with it', async () => {
  const lab = await open()
  const ends = endsOf(lab)
  const stream = watching(lab)
  await next(stream)
  stream.cancel()
  await expect.poll(() => ends).toEqual(['ended'])
})

test('a server that stops ends watches and waits for calls under way', async () => {
  let release = () => {}
  const held = new Promise<void>((done) => {
    release = done
  })
  const lab = await grpcLab()
  const create = lab.objects.create.bind(lab.objects)
  const reached = Promise.withResolvers<void>()
  lab.objects.create = (async (...args: Parameters<typeof create>) => {
    reached.resolve()
    await held
    return create(...args)
  }) as typeof create
  const stream = lab.client.watch()
  await next(stream)
  const calling = lab.client.call('CreateVm', { name: 'late' })
  await reached.promise
  const watchEnds = once(stream, 'error')
  stream.resume()
  const closing = lab.listener.close()
  expect((await watchEnds)[0]).toMatchObject({ code: status.UNAVAILABLE, details: 'the server is stopping' })
  release()
  expect(await calling).toMatchObject({ name: 'late' })
  await closing
  expect((await lab.client.refusal('ListVms', {}, { deadlineMs: 1_000 })).code).toBe(status.UNAVAILABLE)
  await lab.close()
})

test('a server that stops does not wait for ever', async () => {
  const lab = await grpcLab({ grpcLimits: { ...defaultGrpcLimits, graceMs: 100 } })
  lab.objects.list = () => new Promise(() => {})
  const calling = lab.client.refusal('ListVms')
  const silent = lab.connect()
  silent.on('error', () => {})
  await once(silent, 'connect')
  await expect.poll(() => lab.audits.length).toBe(0)
  await lab.listener.close()
  expect((await calling).code).toBe(status.UNAVAILABLE)
  await lab.close()
})

test('a user has only so many watches, those of the REST API among them, and they are shown', async () => {
  const clock = systemClock
  const fair = new FairQueue({ ...defaultFairLimits, watchesOfOne: 2 }, clock)
  const metrics = new Prometheus({ clock })
  const lab = await open({ fair, metrics })
  const shown = async () => {
    const series = 'plasmavmc_apiserver_longrunning_requests{verb="watch",resource="virtualmachines"} '
    const line = (await metrics.text()).split('\n').find((one) => one.startsWith(series))
    return Number(line?.slice(series.length))
  }
  const ofRest = fair.watch('admin', () => {})
  const first = watching(lab)
  expect(await next(first)).toMatchObject({ type: 'SYNCED' })
  expect(await shown()).toBe(1)
  const [error] = await once(watching(lab), 'error')
  expect(error).toMatchObject({
    code: status.RESOURCE_EXHAUSTED,
    details: expect.stringContaining('admin has 2 watches, which is as many as one may have (end some'),
  })
  first.cancel()
  await expect.poll(shown).toBe(0)
  ofRest()
})

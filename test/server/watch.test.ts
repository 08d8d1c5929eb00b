import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { type Fields, silentLog } from '../../src/lib/log.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { sendWatch, startWatch } from '../../src/server/watch.ts'
import { type Lab, lab, machine, machines, merge } from './fixture.ts'

interface Frame {
  readonly type: string
  // biome-ignore lint/suspicious/noExplicitAny: frames hold objects, tables and statuses
  readonly object: any
}

let server: Lab
beforeEach(async () => {
  server = await lab()
  for (const name of ['web', 'db'])
    await server.call('POST', machines, machine(name, {}, { labels: { app: name } }))
})
afterEach(() => server.app.close())

/** What a watch of one second says. */
async function framesOf(query: string, accept = 'application/json', at = machines): Promise<Frame[]> {
  const { code, text } = await server.call('GET', `${at}?watch=true&timeoutSeconds=1&${query}`, undefined, {
    accept,
  })
  expect(code).toBe(200)
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Frame)
}

const shown = (frames: readonly Frame[]) =>
  frames.map(({ type, object }) => `${type} ${object.metadata.name}`)

/** Frames as they come over a real connection; `next` waits for one. */
async function open(query: string) {
  if (!server.app.server.listening) await server.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.app.server.address() as AddressInfo
  const stop = new AbortController()
  const answer = await fetch(`http://127.0.0.1:${port}${machines}?watch=true&${query}`, {
    headers: { authorization: 'Bearer admin' },
    signal: stop.signal,
  })
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  const next = async (): Promise<Frame> => {
    while (!rest.includes('\n')) {
      const { value, done } = await reader.read()
      if (done) throw new Error('the watch ended')
      rest += value
    }
    const line = rest.slice(0, rest.indexOf('\n'))
    rest = rest.slice(line.length + 1)
    return JSON.parse(line) as Frame
  }
  return { next, stop: () => stop.abort() }
}

it('begins with what is there, or after a version', async () => {
  expect(shown(await framesOf(''))).toEqual(['ADDED db', 'ADDED web'])
  expect(shown(await framesOf('resourceVersion=0&labelSelector=app%3Ddb'))).toEqual(['ADDED db'])
  const { metadata } = (await server.call('GET', machines)).json
  expect(await framesOf(`resourceVersion=${metadata.resourceVersion}`)).toEqual([])
  expect(shown(await framesOf('resourceVersion=2'))).toEqual(['ADDED db'])
})

it('tells changes as they come', async () => {
  const { metadata } = (await server.call('GET', machines)).json
  const watch = await open(`resourceVersion=${metadata.resourceVersion}`)
  await server.call('POST', machines, machine('new'))
  expect(shown([await watch.next()])).toEqual(['ADDED new'])
  await server.call('PATCH', `${machines}/new`, { spec: { memory: '1Gi' } }, { 'content-type': merge })
  const changed = await watch.next()
  expect([changed.type, changed.object.spec.memory]).toEqual(['MODIFIED', '1Gi'])
  await server.call('DELETE', `${machines}/new`)
  expect(shown([await watch.next()])).toEqual(['DELETED new'])
  watch.stop()
})

it('an object that leaves a field selection is deleted to its watcher', async () => {
  await server.running('vm')
  const watch = await open('fieldSelector=status.phase%3DRunning')
  expect(shown([await watch.next()])).toEqual(['ADDED vm'])
  const status = { status: { phase: 'Stopped' } }
  await server.call('PATCH', `${machines}/vm/status`, status, { 'content-type': merge })
  expect(shown([await watch.next()])).toEqual(['DELETED vm'])
  watch.stop()
})

it('a watch on one name is about that name only', async () => {
  expect(shown(await framesOf('', 'application/json', `${machines}/web`))).toEqual(['ADDED web'])
})

it('shows tables and the end of the initial state', async () => {
  const [frame] = await framesOf('', 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json')
  expect(frame).toMatchObject({ type: 'ADDED', object: { kind: 'Table' } })
  expect(frame!.object.rows[0].cells[0]).toBe('db')
  const frames = await framesOf(
    'sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true',
  )
  expect(frames.at(-1)).toMatchObject({
    type: 'BOOKMARK',
    object: { kind: 'VirtualMachine', metadata: { annotations: { 'k8s.io/initial-events-end': 'true' } } },
  })
})

it('a version that history no longer has is Gone', async () => {
  const old = await lab({ historyLimit: 2 })
  for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) await old.call('POST', machines, machine(name))
  const { text } = await old.call('GET', `${machines}?watch=true&resourceVersion=1`)
  expect(JSON.parse(text)).toMatchObject({ type: 'ERROR', object: { code: 410, reason: 'Expired' } })
})

it('what goes wrong within is in the log, and no more than that is told to the client', async () => {
  const logged: [string, unknown][] = []
  const log = {
    ...silentLog,
    error: (message: string, { err, path } = {} as Fields) => void logged.push([message, [path, err]]),
  }
  const { objects } = server
  const cause = new TypeError('no such row')
  const broken = new Proxy(objects, {
    get: (target, name) => {
      const member = Reflect.get(target, name)
      if (name !== 'watchText') return typeof member === 'function' ? member.bind(target) : member
      // biome-ignore lint/correctness/useYield: it fails before it has anything
      return async function* () {
        throw cause
      }
    },
  })
  const other = await lab({ objects: broken, log })
  const { text } = await other.call('GET', `${machines}?watch=true&resourceVersion=1`)
  const { type, object } = JSON.parse(text)
  expect([type, object.code, object.message]).toEqual(['ERROR', 500, 'the watch failed'])
  expect(logged).toEqual([['watch failed', [machines, cause]]])
})

it('a client that reads nothing is cut, and its reader of the store let go', async () => {
  const { PassThrough } = await import('node:stream')
  const client = new PassThrough({ highWaterMark: 1 })
  const cuts: (() => void)[] = []
  const clock = {
    ...systemClock,
    after: (_ms: number, fn: () => void) => {
      cuts.push(fn)
      return () => {}
    },
  }
  const path = { kind: VirtualMachine as never, namespace: 'default' }
  const request = { path, query: new URLSearchParams(), form: 'json' as const }
  let told = 0
  const onCut = () => {
    told += 1
  }
  const sent = sendWatch(startWatch(request, server.objects, clock), client, clock, onCut)
  await expect.poll(() => cuts.length).toBe(2) // the watch's own end, and the stalled write's
  cuts[1]!()
  await sent
  expect(client.destroyed).toBe(true)
  expect(told).toBe(1)
})

it('counts its watches and requests', async () => {
  const watch = await open('')
  await watch.next()
  const value = async () =>
    /^plasmavmc_apiserver_longrunning_requests\{verb="watch",resource="virtualmachines"\} (\d+)$/m.exec(
      (await server.call('GET', '/metrics')).text,
    )?.[1]
  expect(await value()).toBe('1')
  watch.stop()
  await expect.poll(value, { timeout: 10_000 }).toBe('0')
  expect((await server.call('GET', '/metrics')).text).toContain(
    'plasmavmc_apiserver_request_total{verb="create",resource="virtualmachines",subresource="",code="201"} 2',
  )
})

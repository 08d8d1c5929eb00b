import { readFileSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { join, resolve } from 'node:path'
import { afterAll, afterEach, expect, it } from 'vitest'
import { authenticate } from '../../src/auth/authenticate.ts'
import { ensureCredentials } from '../../src/auth/credentials.ts'
import { bootstrapIdentity } from '../../src/auth/identity.ts'
import { systemClock } from '../../src/lib/clock.ts'
import type { Log } from '../../src/lib/log.ts'
import { silentLog } from '../../src/lib/log.ts'
import { Lease, StoragePool } from '../../src/resources/kinds.ts'
import { KubeObjects } from '../../src/store/kube-objects.ts'
import { listAndWatch } from '../../src/store/list-watch.ts'
import type { ObjectStore, WatchEvent } from '../../src/store/objects.ts'
import { pool } from '../contract/objects.ts'
import { KubeServers, type OpenOptions, openHttp, writeKubeconfig } from '../fakes/kube-server.ts'
import { TcpProxy } from '../fakes/tcp-proxy.ts'

const servers = new KubeServers()
const opened: { close(): unknown }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
  await servers.closeAll()
})
afterAll(() => servers.end())

type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void
let count = 0

/** A server that answers as it is told, for what Kubernetes answers and ours does not. */
async function told(handler: Handler, options: OpenOptions = {}): Promise<KubeObjects & { calls: string[] }> {
  const { ca, cert, key } = await servers.pki
  const calls: string[] = []
  const server: Server = createServer({ cert, key }, (request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk
    })
    request.on('end', () => {
      calls.push(`${request.method} ${request.url}`)
      handler(request, response, body)
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  count += 1
  const file = join(servers.dir, `told-${count}`)
  const { port } = server.address() as AddressInfo
  writeKubeconfig(file, { ca, server: `https://127.0.0.1:${port}`, user: { token: 't' } })
  const http = openHttp(file, options)
  opened.push(http, {
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  })
  return Object.assign(new KubeObjects({ clock: systemClock, random: () => 0, ...options, http }), { calls })
}

const json = (response: ServerResponse, code: number, body: unknown, headers = {}) =>
  response.writeHead(code, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
const status = (reason: string, code: number, more = {}) => ({
  ...{ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', reason, code, message: 'm' },
  ...more,
})
const stored = (name: string, resourceVersion: string, path = '/p') =>
  pool(name, { path }, { uid: `uid-of-${name}`, resourceVersion, managedFields: [{ manager: 'kubectl' }] })

async function take(store: ObjectStore, resourceVersion: string, wanted: number): Promise<string[]> {
  const stop = new AbortController()
  const seen: WatchEvent<StoragePool>[] = []
  for await (const event of store.watch(StoragePool, { resourceVersion, signal: stop.signal }))
    if (seen.push(event) === wanted) stop.abort()
  return seen.map(({ type, object }) => `${type} ${object.metadata.name} ${object.spec.path}`)
}

it('goes on where a watch ended, however often its server ends it', async () => {
  const server = await servers.start()
  let watches = 0
  server.app.server.on('request', ({ url = '' }) => {
    if (url.includes('watch=true')) watches += 1
  })
  const store = server.open({ watchMs: 1_000, random: () => 0 })
  const { resourceVersion } = await store.list(StoragePool)
  const watching = take(store, resourceVersion, 3)
  for (const [i, name] of ['a', 'b', 'c'].entries()) {
    // Once the server has ended the one before.
    await expect.poll(() => watches, { timeout: 10_000 }).toBeGreaterThan(i)
    await server.objects.create(StoragePool, pool(name))
  }
  expect(await watching).toEqual(['ADDED a /p', 'ADDED b /p', 'ADDED c /p'])
})

/** Connections to `port` of loopback; `freeze` leaves those that there are open, and passes nothing of them, not even an end. */
async function halfOpen(port: number) {
  const frozen = new WeakSet<Socket>()
  const pairs = new Set<readonly [Socket, Socket]>()
  const proxy = createTcpServer((client) => {
    const upstream = connect(port, '127.0.0.1')
    pairs.add([client, upstream])
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.on('data', (data) => !frozen.has(client) && to.write(data))
      from.on('close', () => !frozen.has(client) && to.destroy())
      from.on('error', () => {})
    }
  })
  await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done))
  opened.push({
    close: () => {
      for (const socket of [...pairs].flat()) socket.destroy()
      proxy.close()
    },
  })
  return {
    port: (proxy.address() as AddressInfo).port,
    freeze: () => {
      for (const [client] of pairs) frozen.add(client)
    },
  }
}

it('gives up a connection that is silent beyond its time, and misses nothing', async () => {
  const server = await servers.start()
  const proxy = await halfOpen(server.port)
  const file = join(servers.dir, 'half-open')
  const { ca } = await servers.pki
  writeKubeconfig(file, { ca, server: `https://127.0.0.1:${proxy.port}`, user: { token: 'admin' } })
  const http = openHttp(file, { callMs: 3_000 })
  opened.push(http)
  const store = new KubeObjects({ http, clock: systemClock, watchMs: 1_000, graceMs: 500, random: () => 0 })
  const stop = new AbortController()
  const { resourceVersion } = await store.list(StoragePool)
  const watch = store.watch(StoragePool, { resourceVersion, signal: stop.signal })
  await server.objects.create(StoragePool, pool('a'))
  expect((await watch.next()).value?.object.metadata.name).toBe('a')
  const next = watch.next()
  proxy.freeze()
  await expect(store.get(StoragePool, { name: 'a' })).rejects.toMatchObject({ reason: 'Timeout' })
  await server.objects.create(StoragePool, pool('b'))
  expect((await next).value?.object.metadata.name).toBe('b')
  stop.abort()
})

it('says that no server is there, once, and that it is back', async () => {
  const server = await servers.start()
  const lines: string[] = []
  const log: Log = { ...silentLog, warn: (text) => lines.push(text), info: (text) => lines.push(text) }
  const proxy = await TcpProxy.to(server.port)
  opened.push(proxy)
  const file = join(servers.dir, 'away')
  const { ca } = await servers.pki
  writeKubeconfig(file, { ca, server: `https://127.0.0.1:${proxy.port}`, user: { token: 'admin' } })
  const http = openHttp(file, { log })
  opened.push(http)
  const store = new KubeObjects({ http, clock: systemClock })
  await store.list(StoragePool)
  proxy.mode = 'cut'
  for (let i = 0; i < 2; i += 1)
    await expect(store.list(StoragePool)).rejects.toMatchObject({
      reason: 'ServiceUnavailable',
      message: expect.stringContaining('no answer from 127.0.0.1'),
    })
  proxy.mode = 'pass'
  await store.list(StoragePool)
  expect(lines).toEqual(['the API server does not answer', 'the API server answers again'])
})

it('trusts nobody but the CA of the kubeconfig', async () => {
  const server = await servers.start()
  const other = new KubeServers()
  try {
    const file = join(servers.dir, 'stranger')
    const { ca } = await other.pki
    writeKubeconfig(file, { ca, server: `https://127.0.0.1:${server.port}`, user: { token: 'admin' } })
    const http = openHttp(file)
    opened.push(http)
    await expect(new KubeObjects({ http, clock: systemClock }).list(StoragePool)).rejects.toMatchObject({
      reason: 'ServiceUnavailable',
      hint: expect.stringContaining('does not vouch'),
    })
  } finally {
    await other.end()
  }
})

it('runs the exec plugin that plasmavmc kubeconfig names, and again when its token is refused', async () => {
  const dataDir = join(servers.dir, 'data')
  const credentials = ensureCredentials(dataDir)
  const runs = join(servers.dir, 'runs')
  const timesRun = () => readFileSync(runs, 'utf8').split('\n').length - 1
  let refuse = false
  const server = await servers.start({
    authenticate: (request) => {
      // As where the clock of the one who signed was wrong.
      if (refuse) {
        refuse = false
        return { ok: false, code: 'RequestExpired' as const, message: 'too old' }
      }
      return authenticate(request, {
        secretOf: (id) =>
          id === credentials.accessKeyId
            ? { secret: credentials.secretAccessKey, identity: bootstrapIdentity }
            : undefined,
        ...{ now: systemClock.now(), region: 'local', service: 'plasmavmc' },
      })
    },
  })
  const exec = {
    ...{ apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Never' },
    command: 'sh',
    args: [
      ...['-c', 'echo run >> "$0"; exec "$@"', runs, resolve('bin/plasmavmc')],
      ...['token', '--data-dir', dataDir, '--server', `127.0.0.1:${server.port}`],
    ],
  }
  const file = join(servers.dir, 'exec')
  const { ca } = await servers.pki
  writeKubeconfig(file, { ca, server: `https://127.0.0.1:${server.port}`, user: { exec } })
  const http = openHttp(file)
  opened.push(http)
  const store = new KubeObjects({ http, clock: systemClock })
  const made = await store.create(StoragePool, pool('a'))
  expect(timesRun()).toBe(1)
  refuse = true
  expect(await store.get(StoragePool, { name: 'a' })).toEqual(made)
  expect(timesRun()).toBe(2)
})

it('asks twice, and no more, where it is not let in', async () => {
  const store = await told((_request, response) => json(response, 401, status('Unauthorized', 401)))
  await expect(store.list(StoragePool)).rejects.toMatchObject({ reason: 'Unauthorized' })
  expect(store.calls).toHaveLength(2)
})

it('reads what Kubernetes leaves out of lists, and leaves out what it adds', async () => {
  const lease = { metadata: { name: 'l', namespace: 'default', resourceVersion: '7' }, spec: {} }
  const store = await told((_request, response) =>
    json(response, 200, { kind: 'LeaseList', metadata: { resourceVersion: '9' }, items: [lease] }),
  )
  const { items, resourceVersion } = await store.list(Lease)
  expect(resourceVersion).toBe('9')
  expect(items).toEqual([{ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', ...lease }])
  const pools = await told((_request, response) => json(response, 200, stored('a', '3')))
  const found = await pools.get(StoragePool, { name: 'a' })
  expect(found.metadata).toEqual({ name: 'a', uid: 'uid-of-a', resourceVersion: '3' })
  expect(found.spec).toEqual({ path: '/p', shared: false })
})

it('reads a long list page by page, and at once where the pages grow too old', async () => {
  const page = (names: string[], next?: string) => ({
    kind: 'StoragePoolList',
    metadata: { resourceVersion: '5', ...(next && { continue: next }) },
    items: names.map((name) => stored(name, '1')),
  })
  const paged = await told(({ url }, response) =>
    json(response, 200, url?.includes('continue=t') ? page(['b']) : page(['a'], 't')),
  )
  expect((await paged.list(StoragePool)).items.map(({ metadata }) => metadata.name)).toEqual(['a', 'b'])
  expect(paged.calls).toEqual([
    'GET /apis/plasmavmc.io/v1alpha1/storagepools?limit=500',
    'GET /apis/plasmavmc.io/v1alpha1/storagepools?limit=500&continue=t',
  ])
  const old = await told(({ url }, response) => {
    if (url?.includes('continue')) return json(response, 410, status('Expired', 410))
    return json(response, 200, url?.includes('limit') ? page(['a'], 't') : page(['a', 'b']))
  })
  expect((await old.list(StoragePool)).items).toHaveLength(2)
  expect(old.calls).toHaveLength(7)
})

it('names the version of now where a write names none, and tries anew only where another was quicker', async () => {
  let version = 1
  const store = await told(({ method }, response, body) => {
    if (method === 'GET') return json(response, 200, stored('a', String(version)))
    const { metadata } = JSON.parse(body) as StoragePool
    // Somebody else writes before the first two.
    if (version < 3) version += 1
    if (metadata.resourceVersion !== String(version)) return json(response, 409, status('Conflict', 409))
    return json(response, 200, stored('a', '9'))
  })
  const written = await store.update(StoragePool, pool('a'))
  expect(written.metadata.resourceVersion).toBe('9')
  const stale = pool('a', {}, { resourceVersion: '1' })
  await expect(store.update(StoragePool, stale)).rejects.toMatchObject({ reason: 'Conflict' })
  expect(store.calls.filter((call) => call.startsWith('PUT'))).toHaveLength(4)
})

it('sends no time of a deletion, which Kubernetes lets nobody change; knows what etcd calls too large', async () => {
  const message = 'etcdserver: request is too large'
  const store = await told((_request, response, body) => {
    if (JSON.parse(body).metadata.deletionTimestamp) return json(response, 422, status('Invalid', 422))
    return json(response, 500, { kind: 'Status', status: 'Failure', code: 500, message })
  })
  const metadata = { name: 'a', resourceVersion: '1', deletionTimestamp: '2026-01-01T00:00:00Z' }
  const update = store.update(StoragePool, { ...pool('a'), metadata })
  await expect(update).rejects.toMatchObject({ reason: 'RequestEntityTooLarge', message })
})

it('makes nothing where a uid is to be restored and the server gives another', async () => {
  const made: string[] = []
  const store = await told(({ url }, response) => {
    if (!url?.includes('dryRun=All')) made.push(String(url))
    json(response, 201, stored('a', '1'))
  })
  const wanted = pool('a', {}, { uid: '0b3a3a0e-0000-4000-8000-000000000001' })
  await expect(store.create(StoragePool, wanted, { restoreUid: true })).rejects.toMatchObject({
    reason: 'BadRequest',
    message: expect.stringContaining('metadata.uid'),
  })
  expect(made).toEqual([])
})

it.each([
  [429, status('TooManyRequests', 429), { reason: 'TooManyRequests', details: { retryAfterSeconds: 7 } }],
  [409, status('AlreadyExists', 409), { reason: 'AlreadyExists' }],
  [409, status('Strange', 409), { reason: 'Conflict' }],
  [404, '404 page not found', { reason: 'NotFound', hint: expect.stringContaining('crds/') }],
  [502, '<html>', { reason: 'ServiceUnavailable' }],
  [504, status('Timeout', 504), { reason: 'Timeout' }],
  [302, '', { reason: 'InternalError' }],
  [200, 'no object', { reason: 'InternalError' }],
])('%i with %j is an error of ours', async (code, body, wanted) => {
  const store = await told((_request, response) => json(response, code, body, { 'retry-after': '7' }))
  await expect(store.get(StoragePool, { name: 'a' })).rejects.toMatchObject(wanted)
})

it('reads no answer that is too large', async () => {
  const store = await told((_request, response) => json(response, 200, 'x'.repeat(3 << 20)), {
    maxBytes: 1 << 20,
  })
  await expect(store.get(StoragePool, { name: 'a' })).rejects.toThrow('more than 1 MiB')
})

it('takes bookmarks for what they are, and Gone for what it is', async () => {
  const frame = (type: string, object: unknown) => `${JSON.stringify({ type, object })}\n`
  const store = await told((request, response) => {
    response.writeHead(200)
    if (request.url?.includes('resourceVersion=5&')) {
      const event = frame('MODIFIED', stored('a', '6', '/q'))
      // Cut anywhere.
      response.write(event.slice(0, 20))
      setImmediate(() => response.end(event.slice(20) + frame('BOOKMARK', stored('', '8'))))
    } else response.end(frame('ERROR', status('Expired', 410)))
  })
  const seen: string[] = []
  const watch = async () => {
    const { signal } = new AbortController()
    for await (const { type } of store.watch(StoragePool, { resourceVersion: '5', signal })) seen.push(type)
  }
  await expect(watch()).rejects.toMatchObject({ reason: 'Gone' })
  expect(seen).toEqual(['MODIFIED'])
  expect(store.calls[1]).toContain('resourceVersion=8&')
  await expect(take(store, '0', 1)).rejects.toMatchObject({ reason: 'Gone' })
})

it('a copy goes on through a time in which it is not let in, but not where it never was', async () => {
  let token = 't'
  const store = await told(({ headers, url }, response) => {
    if (headers.authorization !== `Bearer ${token}`) return json(response, 401, status('Unauthorized', 401))
    if (url?.includes('watch')) return response.writeHead(200).end()
    const items = [stored('a', '1')]
    return json(response, 200, { kind: 'StoragePoolList', metadata: { resourceVersion: '5' }, items })
  })
  const stop = new AbortController()
  const copy = listAndWatch(store, StoragePool, {}, stop.signal)
  expect((await copy.next()).value?.type).toBe('SYNC')
  token = 'another'
  const refused = store.calls.length
  const next = copy.next()
  await expect.poll(() => store.calls.length, { timeout: 10_000 }).toBeGreaterThan(refused + 2)
  const never = listAndWatch(store, StoragePool, {}, stop.signal)
  await expect(never.next()).rejects.toMatchObject({ reason: 'Unauthorized' })
  token = 't'
  expect((await next).value?.type).toBe('SYNC')
  stop.abort()
})

it.each([
  ['no yaml: [', /^--kubeconfig: .*kubeconfig-bad: /],
  ['{}', /names no user that it has/],
])('refuses %j as a kubeconfig, by the name of the file', (text, wanted) => {
  const file = join(servers.dir, 'kubeconfig-bad')
  writeFileSync(file, text)
  expect(() => openHttp(file)).toThrow(wanted)
})

it('refuses a server that is not https, and one behind a proxy', () => {
  const file = join(servers.dir, 'kubeconfig-plain')
  writeKubeconfig(file, { ca: '', server: 'http://127.0.0.1:1', user: { token: 't' } })
  expect(() => openHttp(file)).toThrow('http://127.0.0.1:1 is no https URL')
})

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { etcdUrls, flagOf, loadConfig, variableOf } from '../../src/config.ts'

const root = { uid: 0, machine: 'Node-1' }

test('defaults for root and for others', () => {
  expect(loadConfig({}, {}, root)).toMatchObject({
    dataDir: '/var/lib/plasmavmc',
    runDir: '/run/plasmavmc',
    listen: { host: '127.0.0.1', port: 7443 },
    hostName: 'node-1',
    store: 'lmdb',
    roles: ['api', 'controller', 'agent'],
    accelerator: 'auto',
  })
  const env = { HOME: '/home/u', XDG_RUNTIME_DIR: '/run/user/7' }
  expect(loadConfig({}, env, { ...root, uid: 7 })).toMatchObject({
    dataDir: '/home/u/.local/share/plasmavmc',
    runDir: '/run/user/7/plasmavmc',
  })
})

test('flags win over the environment, that over the file', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'pvmc-config-'))
  const config = join(dir, 'c.yaml')
  await writeFile(config, 'hostName: file\nstore: memory\nlogLevel: warn\nlisten: "[::1]:1"\n')
  const env = { PLASMAVMC_CONFIG: config, PLASMAVMC_HOST_NAME: 'env', PLASMAVMC_STORE: 'lmdb' }
  expect(loadConfig({ hostName: 'flag' }, env, root)).toMatchObject({
    hostName: 'flag',
    store: 'lmdb',
    logLevel: 'warn',
    listen: { host: '::1', port: 1 },
  })
  await writeFile(config, 'hostname: x\n')
  expect(() => loadConfig({ config }, {}, root)).toThrow(/knows no "hostname"; settings are: .*hostName/)
  await rm(dir, { recursive: true })
})

test.each([
  [{ listen: 'nonsense' }, {}, /^--listen: must be host:port/],
  [{}, { PLASMAVMC_LISTEN: 'a:99999' }, /^PLASMAVMC_LISTEN: port must be/],
  [{ roles: 'api,king' }, {}, /^--roles: .*must be some of/],
  [{ store: 'disk' }, {}, /^--store: /],
  [{ config: '/nonexistent/c.yaml' }, {}, /configuration file \/nonexistent/],
])('%j %j is refused by name', (flags, env, message) => {
  expect(() => loadConfig(flags, env, root)).toThrow(message)
})

test('gRPC has an address, or none, or is left to us', () => {
  const of = (flags: object, env = {}) => loadConfig(flags, env, root).grpcListen
  expect(of({})).toBeUndefined()
  expect(of({ grpcListen: 'none' })).toBe('none')
  expect(of({}, { PLASMAVMC_GRPC_LISTEN: '[::1]:0' })).toEqual({ host: '::1', port: 0 })
  for (const wrong of ['nowhere', 'None', 'a:65536', ':1'])
    expect(() => of({ grpcListen: wrong })).toThrow(
      /^--grpc-listen: (must be host:port, .* or none|port must be at most 65535)/,
    )
})

test.each([
  [{ maxConnections: '63' }, {}, /^--max-connections: must be at least 64/],
  [{ maxRequestsInflight: 'many' }, {}, /^--max-requests-inflight: must be a whole number/],
  [{ maxRequestsWaiting: '1.5' }, {}, /^--max-requests-waiting: must be a whole number/],
  [{}, { PLASMAVMC_REQUEST_RATE: '-1' }, /^PLASMAVMC_REQUEST_RATE: must be a whole number/],
  [{}, { PLASMAVMC_WATCHES_PER_USER: '100001' }, /^PLASMAVMC_WATCHES_PER_USER: must be at most 100000/],
  [{ consolesPerUser: '0' }, {}, /^--consoles-per-user: must be at least 1/],
  [{ failedAttempts: '4' }, {}, /^--failed-attempts: must be at least 5/],
])('limits: %j %j is refused by name', (flags, env, message) => {
  expect(() => loadConfig(flags, env, root)).toThrow(message)
})

test('limits come from flags, environment and file alike', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'pvmc-config-'))
  const config = join(dir, 'c.yaml')
  await writeFile(config, 'maxConnections: 200\nrequestRate: "30"\n')
  const env = { PLASMAVMC_CONSOLES_PER_USER: '7', PLASMAVMC_MAX_CONNECTIONS: '300' }
  expect(loadConfig({ config, failedAttempts: '9' }, env, root)).toMatchObject({
    ...{ maxConnections: 300, requestRate: 30, consolesPerUser: 7, failedAttempts: 9 },
    ...{ maxRequestsInflight: 64, maxRequestsWaiting: 4_096, watchesPerUser: 1_000 },
  })
  await writeFile(config, 'requestRate: 1.5\n')
  expect(() => loadConfig({ config }, {}, root)).toThrow(/^requestRate of .*c\.yaml: must be a whole number/)
  await rm(dir, { recursive: true })
})

const etcd = { store: 'etcd', etcdEndpoints: 'a:1,b:2' }

test.each([
  [{ roles: 'api,agent' }, {}, /^--roles: must be all of api, controller, agent: with --store lmdb/],
  [{ store: 'etcd' }, {}, /^--store: etcd needs --etcd-endpoints/],
  [{ etcdEndpoints: 'a:1' }, {}, /^--etcd-endpoints: is for --store etcd, not for lmdb/],
  [{ store: 'memory' }, { PLASMAVMC_ETCD_USER: 'u' }, /^PLASMAVMC_ETCD_USER: is for --store etcd/],
  [{ ...etcd, etcdEndpoints: 'a:1,,' }, {}, /^--etcd-endpoints: must be host:port/],
  [{ ...etcd, etcdEndpoints: 'a' }, {}, /^--etcd-endpoints: must be host:port/],
  [{ ...etcd, etcdEndpoints: 'http://a:1,https://b:1' }, {}, /^--etcd-endpoints: must be all https/],
  [{ ...etcd, etcdEndpoints: 'http://a:1', etcdCa: '/ca' }, {}, /^--etcd-ca: is for https/],
  [{ ...etcd, etcdCert: '/c' }, {}, /^--etcd-cert: needs --etcd-key/],
  [{ ...etcd, etcdKey: '/k' }, {}, /^--etcd-key: needs --etcd-cert/],
  [{ ...etcd, etcdUser: 'u' }, {}, /^--etcd-user: needs --etcd-password-file/],
  [etcd, { PLASMAVMC_ETCD_PASSWORD_FILE: '/p' }, /^PLASMAVMC_ETCD_PASSWORD_FILE: needs --etcd-user/],
  [{ ...etcd, etcdPrefix: 'x/' }, {}, /^--etcd-prefix: must be like/],
  [{ acceptStoreReset: true }, {}, /^--accept-store-reset: is for --store etcd, not for lmdb/],
  [etcd, { PLASMAVMC_ACCEPT_STORE_RESET: 'maybe' }, /^PLASMAVMC_ACCEPT_STORE_RESET: must be true or false/],
])('etcd: %j %j is refused by name', (flags, env, message) => {
  expect(() => loadConfig(flags, env, root)).toThrow(message)
})

test('a store that was restored is accepted by flag or environment, and never unasked', () => {
  expect(loadConfig(etcd, {}, root).acceptStoreReset).toBe(false)
  expect(loadConfig({ ...etcd, acceptStoreReset: true }, {}, root).acceptStoreReset).toBe(true)
  for (const [text, value] of [
    ['true', true],
    ['1', true],
    ['false', false],
    ['0', false],
  ] as const)
    expect(loadConfig(etcd, { PLASMAVMC_ACCEPT_STORE_RESET: text }, root).acceptStoreReset).toBe(value)
})

test('a lease, its guard and how it fences', () => {
  expect(loadConfig(etcd, {}, root)).toMatchObject({
    ...{ leaseDuration: 10, leaseRenew: 3, leaseDeadline: 6, fencing: 'guard' },
    peerListen: { host: '0.0.0.0', port: 7444 },
  })
  const env = { PLASMAVMC_LEASE_RENEW: '0.5', PLASMAVMC_FENCING: 'watchdog' }
  const flags = { ...etcd, peerAddress: '[fd00::1]:7', watchdogDevice: '/dev/watchdog1' }
  expect(loadConfig(flags, env, root)).toMatchObject({
    ...{ leaseRenew: 0.5, fencing: 'watchdog', watchdogDevice: '/dev/watchdog1' },
    peerAddress: { host: 'fd00::1', port: 7 },
  })
})

test.each([
  [{ leaseDuration: '20' }, {}, /^--lease-duration: is for --store etcd, not for lmdb/],
  [{}, { PLASMAVMC_FENCING: 'none' }, /^PLASMAVMC_FENCING: is for --store etcd/],
  [{ peerListen: '0.0.0.0:1' }, {}, /^--peer-listen: is for --store etcd/],
  [{ ...etcd, leaseRenew: '0' }, {}, /^--lease-renew: must be more than 0/],
  [{ ...etcd, leaseDeadline: '6s' }, {}, /^--lease-deadline: must be a number of seconds/],
  [{ ...etcd, fencing: 'prayer' }, {}, /^--fencing: must be none, guard or watchdog/],
  [{ ...etcd, watchdogDevice: '/dev/watchdog1' }, {}, /^--watchdog-device: is for --fencing watchdog/],
  [{ ...etcd, peerAddress: 'nowhere' }, {}, /^--peer-address: must be host:port/],
])('cluster: %j %j is refused by name', (flags, env, message) => {
  expect(() => loadConfig(flags, env, root)).toThrow(message)
})

const kubernetes = { store: 'kubernetes', kubeconfig: '/k', roles: 'agent' }

test('with Kubernetes as the store no host fences itself, and the API is its own', () => {
  expect(loadConfig(kubernetes, {}, root)).toMatchObject({
    fencing: 'none',
    roles: ['agent'],
    leaseDuration: 10,
  })
  const flags = { ...kubernetes, roles: 'controller,agent', leaseDuration: '40', brake: '10' }
  expect(loadConfig(flags, {}, root)).toMatchObject({ leaseDuration: 40, brake: 10 })
})

test.each([
  [{ kubeconfig: '/k' }, {}, /^--kubeconfig: is for --store kubernetes, not for lmdb/],
  [{ store: 'kubernetes' }, {}, /^the default of --roles: must be controller, agent or both/],
  [{ ...kubernetes, roles: 'api,agent' }, {}, /^--roles: must be controller, agent or both/],
  [{ ...kubernetes, fencing: 'guard' }, {}, /^--fencing: must be none with --store kubernetes/],
  [kubernetes, { PLASMAVMC_FENCING: 'watchdog' }, /^PLASMAVMC_FENCING: must be none with --store kubernetes/],
  [{ ...kubernetes, etcdEndpoints: 'a:1' }, {}, /^--etcd-endpoints: is for --store etcd, not for kubernetes/],
  [{ ...kubernetes, peerListen: '0.0.0.0:1' }, {}, /^--peer-listen: is for --store etcd/],
  [{ roles: 'controller' }, {}, /^--roles: must be all of/],
  [{ roles: 'api,controller', fencing: 'none' }, {}, /^--fencing: is for --store etcd/],
])('kubernetes: %j %j is refused by name', (flags, env, message) => {
  expect(() => loadConfig(flags, env, root)).toThrow(message)
})

test('a server with a store of its own may leave the machines to the agents that join it', () => {
  const config = loadConfig({ roles: 'api,controller', leaseDuration: '20' }, {}, root)
  expect(config).toMatchObject({ roles: ['api', 'controller'], leaseDuration: 20, store: 'lmdb' })
})

test('endpoints of etcd are https where something says so', () => {
  const urls = (flags: object) => etcdUrls(loadConfig({ ...etcd, ...flags }, {}, root))
  expect(urls({})).toEqual(['http://a:1', 'http://b:2'])
  expect(urls({ etcdCa: '/ca' })).toEqual(['https://a:1', 'https://b:2'])
  expect(urls({ etcdEndpoints: 'https://[::1]:2379,b:2' })).toEqual(['https://[::1]:2379', 'https://b:2'])
  expect(loadConfig(etcd, {}, root).etcdPrefix).toBe('/plasmavmc')
})

test('names of flags and variables', () => {
  expect([flagOf('dataDir'), variableOf('dataDir')]).toEqual(['--data-dir', 'PLASMAVMC_DATA_DIR'])
})

test('a server of a cluster may run some parts only', () => {
  expect(loadConfig({ ...etcd, roles: 'api, controller' }, {}, root).roles).toEqual(['api', 'controller'])
})

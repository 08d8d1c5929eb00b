import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { flagOf, loadConfig, variableOf } from '../../src/config.ts'

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
  await writeFile(config, 'hostName: file\nstore: memory\nroles: [api]\nlisten: "[::1]:1"\n')
  const env = { PLASMAVMC_CONFIG: config, PLASMAVMC_HOST_NAME: 'env', PLASMAVMC_STORE: 'lmdb' }
  expect(loadConfig({ hostName: 'flag' }, env, root)).toMatchObject({
    hostName: 'flag',
    store: 'lmdb',
    roles: ['api'],
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

test('names of flags and variables', () => {
  expect([flagOf('dataDir'), variableOf('dataDir')]).toEqual(['--data-dir', 'PLASMAVMC_DATA_DIR'])
})

import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Lab } from './lab.ts'

let here: Lab
/** Another server, with a store of its own, that knows the same key and has the same CA. */
let there: Lab
let kubeconfig: string

beforeAll(async () => {
  ;[here, there] = await Promise.all([Lab.start(), Lab.start()])
  await there.end('SIGTERM')
  for (const file of ['credentials', 'pki/ca.crt', 'pki/ca.key'])
    copyFileSync(join(here.dataDir, file), join(there.dataDir, file))
  await there.serve()
  kubeconfig = (await here.cli('kubeconfig')).stdout
})
afterAll(() => Promise.all([here?.close(), there?.close()]))

/** kubectl with that kubeconfig, on a server that is reached by that address. */
async function kubectl(address: string, ...args: readonly string[]) {
  const file = join(here.dir, 'k')
  writeFileSync(file, kubeconfig.replace(/server: https:.*/, `server: https://${address}`))
  return here.run('kubectl', ['--kubeconfig', file, ...args])
}

const viaName = ({ address }: Lab) => address.replace('127.0.0.1', 'localhost')

test('the tokens of a kubeconfig are good at its server, by any name, and after a restart', async () => {
  expect(kubeconfig).toMatch(/- --cluster\n +- [0-9a-f-]{36}\n/)
  for (const address of [here.address, viaName(here)])
    expect(await kubectl(address, 'auth', 'whoami')).toMatchObject({
      ...{ code: 0, stdout: expect.stringContaining('admin') },
    })
  await here.restart('SIGKILL')
  expect(await kubectl(here.address, 'get', 'vms')).toMatchObject({ code: 0 })
})

test('they are good nowhere else, where others are', async () => {
  expect(await there.cli('get', 'vms')).toMatchObject({ code: 0 })
  const free = (await here.cli('token', '--raw')).stdout.trim()
  const [id] = /[0-9a-f-]{36}/.exec(kubeconfig) ?? []
  const bound = (await here.cli('token', '--raw', '--cluster', id ?? '')).stdout.trim()
  const ask = async (lab: Lab, token: string) => {
    const url = `https://${lab.address}/api`
    const ca = join(here.dataDir, 'pki/ca.crt')
    const header = `authorization: Bearer ${token}`
    const { stdout } = await here.run('curl', ['-sS', '-m', '10', '--cacert', ca, '-H', header, url])
    return JSON.parse(stdout) as { kind: string; code?: number; message?: string }
  }
  expect(await ask(here, bound)).toMatchObject({ kind: 'APIVersions' })
  expect(await ask(here, free)).toMatchObject({ kind: 'APIVersions' })
  expect(await ask(there, free)).toMatchObject({ kind: 'APIVersions' })
  expect(await ask(there, bound)).toMatchObject({
    ...{ kind: 'Status', code: 401 },
    message: expect.stringMatching(/^SignatureDoesNotMatch: .*bound to a cluster/),
  })
  expect((await kubectl(there.address, 'get', 'vms')).stderr).toMatch(/must be logged in/)
})

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openKubeAccess } from '../../src/store/kube-access.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pvkube-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

/** A kubeconfig as kubectl writes it. @returns its path */
function kubeconfig(user: object): string {
  const file = join(dir, 'config')
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'here' },
    clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:6443' } }],
    contexts: [{ name: 'here', context: { cluster: 'c', user: 'us' } }],
    users: [
      { name: 'them', user: { tokenFile: 'theirs' } },
      { name: 'us', user },
    ],
  }
  writeFileSync(file, JSON.stringify(config))
  return file
}

const authorizationOf = async (access: ReturnType<typeof openKubeAccess>) =>
  (await access.credential()).headers['authorization']

it('takes the token of a file that lies beside the kubeconfig, before one in its text, and takes it anew', async () => {
  let now = 0
  writeFileSync(join(dir, 'token'), 'first\n')
  const access = openKubeAccess(kubeconfig({ token: 'text', tokenFile: 'token' }), () => now)
  expect(await authorizationOf(access)).toBe('Bearer first')
  writeFileSync(join(dir, 'token'), 'second')
  now = 300_000
  access.renew()
  expect(await authorizationOf(access)).toBe('Bearer second')
})

it('takes the token in its text where no file is named', async () => {
  expect(await authorizationOf(openKubeAccess(kubeconfig({ token: 'text' })))).toBe('Bearer text')
})

import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { loadConfig } from '../src/config.ts'
import { silentLog } from '../src/lib/log.ts'
import { etcdCredentials } from '../src/wire-store-credentials.ts'

const folder = mkdtempSync(join(tmpdir(), 'plasmavmc-credentials-'))
const at = (file: string) => join(folder, file)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function certificate(name: string): void {
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  const files = ['-keyout', at(`${name}.key`), '-out', at(`${name}.crt`)]
  execFileSync('openssl', ['req', '-x509', ...kind, '-subj', `/CN=${name}`, ...files], { stdio: 'pipe' })
}
const place = (name: string, ...kinds: readonly ('crt' | 'key')[]) => {
  for (const kind of kinds) copyFileSync(at(`${name}.${kind}`), at(`current.${kind}`))
}

it('what the files hold is read anew; while they do not fit each other, what they held before counts', () => {
  for (const name of ['one', 'two']) certificate(name)
  place('one', 'crt', 'key')
  writeFileSync(at('password'), 'first\n')
  const files = { etcdCa: at('one.crt'), etcdCert: at('current.crt'), etcdKey: at('current.key') }
  const user = { etcdUser: 'pvm', etcdPasswordFile: at('password') }
  const given = { store: 'etcd', etcdEndpoints: 'https://127.0.0.1:2379', ...files, ...user }
  const credentials = etcdCredentials(loadConfig(given, {}, { uid: 0 }), silentLog)
  const first = credentials()
  expect(first.auth).toEqual({ username: 'pvm', password: 'first' })
  expect(first.tls?.cert).toEqual(readFileSync(at('one.crt')))
  expect(credentials()).toBe(first)
  place('two', 'crt')
  expect(credentials(), 'the key is not there yet').toBe(first)
  place('two', 'key')
  const second = credentials()
  expect(second.tls?.key).toEqual(readFileSync(at('two.key')))
  writeFileSync(at('password'), 'second')
  expect(credentials().auth?.password).toBe('second')
  rmSync(at('password'))
  expect(credentials().auth?.password).toBe('second')
})

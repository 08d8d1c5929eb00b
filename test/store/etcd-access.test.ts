import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EtcdAccess } from '../../src/store/etcd-client.ts'
import { put, take } from '../contract/kv.ts'
import { type CertFiles, EtcdLab } from '../fakes/etcd-server.ts'
import { openAt } from '../fakes/etcd-stores.ts'

const folder = mkdtempSync(join(tmpdir(), 'plasmavmc-etcd-access-'))
const times = { callMs: 2_500, attemptMs: 1_500, askMs: 1_000, answerMs: 1_000 }
const within = { timeout: 10_000 }
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A CA and a certificate of it that is good for both ends on loopback. */
function certificates(name: string): CertFiles {
  const at = (file: string) => join(folder, `${name}-${file}`)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  openssl('req', '-x509', ...newKey, '-subj', `/CN=${name} CA`, '-keyout', at('ca.key'), '-out', at('ca.crt'))
  openssl('req', ...newKey.slice(0, 5), '-subj', '/CN=root', '-keyout', at('key'), '-out', at('csr'))
  writeFileSync(at('ext'), 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n')
  const ca = ['-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial']
  openssl('x509', '-req', '-in', at('csr'), ...ca, '-days', '2', '-extfile', at('ext'), '-out', at('crt'))
  return { ca: at('ca.crt'), cert: at('crt'), key: at('key') }
}

/** What a store is opened for: it can be written, read and watched. */
async function works(lab: EtcdLab, access: EtcdAccess, prefix = '/plasmavmc'): Promise<void> {
  const kv = await openAt(lab, { ...access, prefix, times })
  try {
    const from = await put(kv, '/a/1')
    const watching = take(kv, '/a/', from, 1)
    const revision = await put(kv, '/a/1', 'x')
    expect((await watching)[0]).toMatchObject({ type: 'put', revision, previous: { revision: from } })
  } finally {
    await kv.close()
  }
}

const unusable = (message: RegExp) => ({ code: 'StoreUnusable', message: expect.stringMatching(message) })

describe('etcd that wants certificates', () => {
  const files = certificates('good')
  const other = certificates('other')
  const read = ({ ca, cert, key }: CertFiles) => ({
    ...{ ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key) },
  })
  const [good, foreign] = [read(files), read(other)]
  let lab: EtcdLab
  beforeAll(async () => {
    lab = await EtcdLab.start({ tls: files })
  })
  afterAll(() => lab?.close())

  it('lets in who has one of its CA', async () => {
    await works(lab, { tls: good })
  })

  it.concurrent.each([
    ['no certificate', { ca: good.ca }, /can't be used/],
    ['one of another CA', { ...foreign, ca: good.ca }, /can't be used/],
    ['another CA than that of etcd', { ...good, ca: foreign.ca }, /certificate/],
    ['no CA at all', { cert: good.cert, key: good.key }, /certificate/],
  ])('does not let in who has %s', async (_, tls, message) => {
    await expect(openAt(lab, { tls, times })).rejects.toMatchObject(unusable(message))
  })

  it('lets in who reads theirs anew once etcd has those of another CA', async () => {
    const at = certificates('renewed')
    const own = await EtcdLab.start({ tls: at })
    let credentials = { tls: read(at) }
    const kv = await openAt(own, { credentials: () => credentials, times })
    try {
      const from = await put(kv, '/a/0')
      const watching = take(kv, '/a/', from, 1)
      const [member] = own.members
      await member?.stop()
      for (const file of ['ca', 'cert', 'key'] as const) copyFileSync(other[file], at[file])
      member?.start()
      await member?.serving()
      await expect(kv.get('/a/0')).rejects.toMatchObject({ reason: 'ServiceUnavailable' })
      credentials = { tls: read(at) }
      await expect.poll(() => kv.get('/a/0').catch(() => 'not yet'), within).toMatchObject({ key: '/a/0' })
      await put(kv, '/a/1')
      expect((await watching).map(({ key }) => key)).toEqual(['/a/1'])
    } finally {
      await kv.close()
      await own.close()
    }
  })

  it.concurrent('is not spoken to in the clear', async () => {
    const endpoints = lab.endpoints.map((endpoint) => endpoint.replace('https', 'http'))
    await expect(openAt(lab, { endpoints, times })).rejects.toMatchObject(unusable(/can't be used/))
  })
})

describe('etcd that wants a password', () => {
  const auth = { username: 'pvm', password: 'secret' }
  let lab: EtcdLab
  beforeAll(async () => {
    // Tokens are forgotten after a second without use.
    lab = await EtcdLab.start({ args: ['--auth-token-ttl', '1'] })
    await lab.ctl('user', 'add', 'root:root')
    await lab.ctl('user', 'grant-role', 'root', 'root')
    await lab.ctl('role', 'add', 'pvm')
    await lab.ctl('role', 'grant-permission', 'pvm', 'readwrite', '--prefix=true', '/plasmavmc/')
    await lab.ctl('user', 'add', 'pvm:secret')
    await lab.ctl('user', 'grant-role', 'pvm', 'pvm')
    await lab.ctl('auth', 'enable')
  })
  afterAll(() => lab?.close())

  it('lets in who knows it, with no more rights than to the prefix', async () => {
    await works(lab, { auth })
  })

  it.each([
    ['the wrong password', { ...auth, password: 'wrong' }, '/plasmavmc', /authentication failed/],
    ['nobody known', { ...auth, username: 'nobody' }, '/plasmavmc', /authentication failed/],
    ['another prefix', auth, '/other', /permission denied/],
  ])('does not let in %s', async (_, given, prefix, message) => {
    const opening = openAt(lab, { auth: given, prefix, times })
    await expect(opening).rejects.toMatchObject({
      ...unusable(message),
      hint: expect.stringContaining('--etcd-user'),
    })
  })

  it('does not let in who gives no name', async () => {
    await expect(openAt(lab, { prefix: '/plasmavmc', times })).rejects.toMatchObject(
      unusable(/user name is empty/),
    )
  })

  it('is logged into again when it has forgotten us, and watches go on', async () => {
    const kv = await openAt(lab, { auth, prefix: '/plasmavmc', times })
    const from = await put(kv, '/b/0')
    const watching = take(kv, '/b/', from, 3)
    await put(kv, '/b/1')
    const [member] = lab.members
    for (const name of ['/b/2', '/b/3']) {
      // Tokens are in its memory only.
      await member?.stop()
      member?.start()
      await member?.serving()
      await put(kv, name)
    }
    expect((await watching).map(({ key }) => key)).toEqual(['/b/1', '/b/2', '/b/3'])
    // And when its users have changed, which makes every token of before worthless.
    await lab.ctl('--user=root:root', 'user', 'add', 'another:x')
    await put(kv, '/b/4')
    await kv.close()
  })

  it('lets in who reads a password anew that has changed; nothing fails where it was there before', async () => {
    let credentials = { auth }
    const kv = await openAt(lab, { credentials: () => credentials, prefix: '/plasmavmc', times })
    const late = await openAt(lab, { credentials: () => credentials, prefix: '/plasmavmc', times })
    const from = await put(kv, '/d/0')
    const watching = take(kv, '/d/', from, 2)
    const change = async (password: string) => {
      await lab.ctl('--user=root:root', 'user', 'delete', 'pvm')
      await lab.ctl('--user=root:root', 'user', 'add', `pvm:${password}`)
      await lab.ctl('--user=root:root', 'user', 'grant-role', 'pvm', 'pvm')
    }
    await change('another')
    await expect(late.put('/d/x', 'x', 0n)).rejects.toMatchObject({
      message: expect.stringMatching(/authentication failed/),
    })
    credentials = { auth: { ...auth, password: 'another' } }
    await put(kv, '/d/1')
    await expect.poll(() => late.put('/d/2', 'x', 0n).catch(() => undefined), within).toBeTypeOf('bigint')
    expect((await watching).map(({ key }) => key)).toEqual(['/d/1', '/d/2'])
    await Promise.all([kv.close(), late.close()])
    await change(auth.password)
  })

  it('tells watchers and writers that they are not let in any more', async () => {
    const kv = await openAt(lab, { auth, prefix: '/plasmavmc', times })
    const from = await put(kv, '/c/0')
    await lab.ctl('--user=root:root', 'user', 'revoke-role', 'pvm', 'pvm')
    await expect(kv.put('/c/1', 'x', 0n)).rejects.toMatchObject({
      ...{ reason: 'ServiceUnavailable', message: expect.stringMatching(/permission denied/) },
    })
    await expect(take(kv, '/c/', from, 1)).rejects.toMatchObject({ reason: 'ServiceUnavailable' })
    await kv.close()
  })
})

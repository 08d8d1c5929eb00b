import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer } from 'node:tls'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ensurePki } from '../../src/server/pki.ts'

const run = promisify(execFile)
const day = 86_400_000
const now = Date.now()
const names = ['host-1', '192.0.2.7']

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pvmc-pki-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

it('makes what openssl verifies, with keys for the owner only', async () => {
  await ensurePki(dir, { names, now })
  expect(readdirSync(dir).sort()).toEqual(['ca.crt', 'ca.key', 'server.crt', 'server.key'])
  for (const key of ['ca.key', 'server.key']) expect(statSync(join(dir, key)).mode & 0o777).toBe(0o600)
  const verify = ['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', join(dir, 'ca.crt')]
  for (const name of ['localhost', 'host-1']) {
    const { stdout } = await run('openssl', [...verify, '-verify_hostname', name, join(dir, 'server.crt')])
    expect(stdout).toMatch(/: OK/)
  }
  for (const ip of ['127.0.0.1', '::1', '192.0.2.7']) {
    const { stdout } = await run('openssl', [...verify, '-verify_ip', ip, join(dir, 'server.crt')])
    expect(stdout).toMatch(/: OK/)
  }
  const other = run('openssl', [...verify, '-verify_hostname', 'other', join(dir, 'server.crt')])
  await expect(other).rejects.toThrow(/hostname mismatch/i)
})

it('serves TLS to a client that trusts only this CA', async () => {
  const { ca, cert, key } = await ensurePki(dir, { names, now })
  const server = createServer({ cert, key }, (socket) => socket.end('hello'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const socket = connect({ host: '127.0.0.1', port, ca })
  const [data] = await once(socket, 'data')
  expect(socket.authorized).toBe(true)
  expect(String(data)).toBe('hello')
  socket.destroy()
  server.close()
})

it('leaves everything alone on the next start', async () => {
  const first = await ensurePki(dir, { names, now })
  expect(await ensurePki(dir, { names, now })).toEqual(first)
  expect(await ensurePki(dir, { names: ['0.0.0.0', ...names, 'localhost'], now: now + 334 * day })).toEqual(
    first,
  )
})

it.each([
  ['less than 30 days are left', { names, now: now + 336 * day }],
  ['a name is new', { names: [...names, 'host-2'], now }],
  ['a name is gone', { names: ['host-1'], now }],
])('makes a new server certificate and keeps the CA when %s', async (_, options) => {
  const first = await ensurePki(dir, { names, now })
  const second = await ensurePki(dir, options)
  expect(second.ca).toBe(first.ca)
  expect(second.cert).not.toBe(first.cert)
  expect(new X509Certificate(second.cert).verify(new X509Certificate(first.ca).publicKey)).toBe(true)
  expect(await ensurePki(dir, options)).toEqual(second)
})

it('mends what a crash or a hand left half done', async () => {
  const first = await ensurePki(dir, { names, now })
  copyFileSync(join(dir, 'ca.key'), join(dir, 'server.key'))
  const second = await ensurePki(dir, { names, now })
  expect(second.cert).not.toBe(first.cert)
  writeFileSync(join(dir, 'server.crt'), 'garbage')
  expect((await ensurePki(dir, { names, now })).ca).toBe(first.ca)
  rmSync(join(dir, 'ca.crt'))
  const remade = await ensurePki(dir, { names, now })
  expect(remade.ca).not.toBe(first.ca)
  expect(new X509Certificate(remade.cert).verify(new X509Certificate(remade.ca).publicKey)).toBe(true)
})

it('says what to do about a CA that cannot be used', async () => {
  await ensurePki(dir, { names, now })
  await expect(ensurePki(dir, { names, now: now + 3651 * day })).rejects.toThrow(/expired/)
  rmSync(join(dir, 'ca.key'))
  await expect(ensurePki(dir, { names, now })).resolves.toBeDefined()
  await expect(ensurePki(dir, { names: ['new'], now })).rejects.toThrow(/ca\.key is missing/)
  writeFileSync(join(dir, 'ca.crt'), 'garbage')
  await expect(ensurePki(dir, { names, now })).rejects.toMatchObject({ code: 'PkiUnusable' })
})

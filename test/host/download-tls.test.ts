import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { ensurePki } from '../../src/server/pki.ts'

const body = 'an image'

test('a server whose CA is among the host’s own is trusted; another is told, with what to do', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'trust-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const { cert, key } = await ensurePki(join(dir, 'pki'), { names: [], now: Date.now() })
  const server = createServer({ cert, key }, (_, answer) => answer.end(body)).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/image`
  const said = async (caFile: string) => {
    const args = [
      '--disable-warning=ExperimentalWarning',
      'test/host/download-child.ts',
      url,
      join(dir, 'to'),
    ]
    // What OpenSSL, and so curl, takes for the host's own CAs.
    const env = { ...process.env, SSL_CERT_FILE: caFile, SSL_CERT_DIR: dir }
    return (await promisify(execFile)(process.execPath, args, { env })).stdout.trim()
  }
  expect(await said(join(dir, 'pki', 'ca.crt'))).toBe(createHash('sha256').update(body).digest('hex'))
  expect(await said('/dev/null')).toContain(
    "nobody whom this host trusts vouches for the server's certificate",
  )
})

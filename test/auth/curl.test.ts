import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { authenticate } from '../../src/auth/authenticate.ts'
import { sha256Hex } from '../../src/auth/hash.ts'
import { fromRawHeaders } from '../../src/auth/header-pairs.ts'
import { credentials, options } from './fixture.ts'

const run = promisify(execFile)
let server: Server
let base: string

beforeAll(async () => {
  server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const verdict = authenticate(
      {
        method: request.method ?? '',
        rawUrl: request.url ?? '',
        headers: fromRawHeaders(request.rawHeaders),
        bodySha256: sha256Hex(Buffer.concat(chunks)),
      },
      { ...options(), now: Date.now() },
    )
    response.end(verdict.ok ? `ok ${verdict.identity.name}` : verdict.code)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => server.close())

async function curl(args: readonly string[], secret = credentials.secretAccessKey): Promise<string> {
  const sign = ['--aws-sigv4', 'aws:amz:local:plasmavmc', '--user', `${credentials.accessKeyId}:${secret}`]
  const { stdout } = await run('curl', ['-sS', '--max-time', '20', ...sign, ...args])
  return stdout
}

/** From 8.3.0 on curl brings a query into the form of the specification by itself. */
async function signsAsTyped(): Promise<boolean> {
  const { stdout } = await run('curl', ['--version'])
  const [, major = '0', minor = '0'] = /^curl (\d+)\.(\d+)/.exec(stdout) ?? []
  return Number(major) < 8 || (Number(major) === 8 && Number(minor) < 3)
}

it.each([
  ['a plain path', ['/livez']],
  ['a collection', ['/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines']],
  ['a sorted query', ['/x?a=1&b=2']],
  ['a query sorted in ASCII order', ['/x?allowWatchBookmarks=true&limit=5&watch=1']],
  ['an encoded query', ['/x?fieldSelector=metadata.name%3Dhello&labelSelector=a%20in%20%28b%29']],
  ['a lone name, written out', ['/x?watch=']],
  ['a body', ['/x', '-X', 'PUT', '-H', 'Content-Type: application/json', '-d', '{"a": "b c"}']],
  ['own headers', ['/x', '-H', 'X-Other: a  b', '-H', 'Accept: application/json']],
  ['a delete', ['/x/y', '-X', 'DELETE']],
])('lets in real curl with %s', async (_, [path, ...args]) => {
  expect(await curl([`${base}${path}`, ...args])).toBe('ok admin')
})

it.each([
  ['an unsorted query', '/x?watch=1&limit=5'],
  ['a lone name', '/x?watch'],
  ['a space as +', '/x?a=b+c'],
  ['parentheses as they are', '/x?labelSelector=a%20in%20(b)'],
])('holds to the specification where curl signs %s as typed', async (_, path) => {
  const wanted = (await signsAsTyped()) ? 'SignatureDoesNotMatch' : 'ok admin'
  expect(await curl([`${base}${path}`])).toBe(wanted)
})

it('refuses real curl with a wrong secret, or with none', async () => {
  expect(await curl([`${base}/x`], 'wrong')).toBe('SignatureDoesNotMatch')
  const { stdout } = await run('curl', ['-sS', '--max-time', '20', `${base}/x`])
  expect(stdout).toBe('MissingAuthenticationToken')
})

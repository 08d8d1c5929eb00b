import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { beforeAll, expect, it } from 'vitest'
import { sha256Hex } from '../../src/auth/hash.ts'
import { verifyRequest } from '../../src/auth/verify.ts'
import { credentials, identity, options } from './fixture.ts'
import { rawUrlOf, request, strict } from './random-requests.ts'

const run = promisify(execFile)
const host = '127.0.0.1:7443'

interface Signed {
  readonly url: string
  readonly headers: Record<string, string>
}

/** The distribution's Python has the distribution's botocore; another Python on PATH may have one, too. */
async function pythonWithBotocore(): Promise<string> {
  for (const python of ['python3', '/usr/bin/python3'])
    try {
      await run(python, ['-c', 'import botocore.auth'])
      return python
    } catch {
      // The next one may have it.
    }
  throw new Error(
    'botocore is missing: apt-get install python3-botocore, or run npm run setup -- --for-tests',
  )
}

let python: string
beforeAll(async () => {
  python = await pythonWithBotocore()
})

function askPython(requests: readonly object[]): Promise<Signed[]> {
  return new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, 'sign_with_botocore.py')
    const child = execFile(python, [script], { maxBuffer: 64 << 20, timeout: 120_000 }, (error, stdout) =>
      error ? reject(error) : resolve(JSON.parse(stdout) as Signed[]),
    )
    child.stdin?.on('error', () => {})
    child.stdin?.end(JSON.stringify({ ...credentials, requests }))
  })
}

/** What botocore's own serializers make of names and paths is encoded as RFC 3986 has it; it signs what it is given. */
const encodePath = (path: string) =>
  path.replace(/[:!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

it.each([
  ['v4', 'plasmavmc', 'twice'],
  ['s3', 's3', 'once'],
  ['query', 'plasmavmc', 'twice'],
] as const)(
  'lets in what botocore signs (%s)',
  { timeout: 180_000 },
  async (style, service, pathEncoding) => {
    const samples = fc.sample(request, 2_000).map((sample) => ({
      ...sample,
      // A presigned URL has no body, and botocore signs what stands in the URL of a query last.
      ...(style === 'query' && { method: 'GET', body: '', headers: {} }),
      rawUrl: rawUrlOf({ ...sample, path: encodePath(sample.path) }, strict),
    }))
    const signed = await askPython(
      samples.map(({ method, rawUrl, headers, body }) => ({
        ...{ style, service, method, url: `https://${host}${rawUrl}`, headers: { host, ...headers }, body },
      })),
    )
    const given = { ...options(), now: Date.now(), service, pathEncoding }
    const refused = signed.flatMap(({ url, headers }, i) => {
      const { method, body } = samples[i]!
      const rawUrl = url.slice(`https://${host}`.length)
      const verdict = verifyRequest({ method, rawUrl, headers, bodySha256: sha256Hex(body) }, given)
      if (verdict.ok) expect(verdict.identity).toEqual(identity)
      return verdict.ok ? [] : [{ method, rawUrl, headers, verdict }]
    })
    expect(refused.slice(0, 3)).toEqual([])
    expect(signed).toHaveLength(2_000)
  },
)

import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { SecureContext } from 'node:tls'
import type { Clock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { PlasmaError } from '../lib/errors.ts'
import { approximateQuantity } from '../resources/quantity.ts'
import { hostTrust, isUntrusted } from './host-trust.ts'

const mostRedirects = 5
const mostMs = 6 * 3_600_000

export interface Download {
  readonly url: string
  /** Where the bytes go; truncated first. */
  readonly to: string
  /** Most bytes that may come. */
  readonly limit: number
  readonly clock: Clock
  readonly signal: AbortSignal
  /** How long the server may stay silent, in milliseconds. */
  readonly stallMs: number
  /** Gets whole percents, where the server says how long the file is. */
  readonly onPercent: (percent: number) => void
}

function failed(url: string, why: string): PlasmaError {
  return new PlasmaError('DownloadFailed', `download of ${url} failed: ${why}`)
}

/** The text of an error of a connection; some have a code alone. */
function reason(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException
  return message || String(code)
}

const trustHint =
  "add its CA to this host's own (Debian: put it into /usr/local/share/ca-certificates, run update-ca-certificates), then restart the server"

function failedBy(url: string, error: unknown): PlasmaError {
  const { code } = error as NodeJS.ErrnoException
  if (!isUntrusted(code)) return failed(url, reason(error))
  const why = `download of ${url} failed: nobody whom this host trusts vouches for the server's certificate (${code})`
  return new PlasmaError('DownloadFailed', why, { hint: trustHint, cause: error })
}

/**
 * Asks for a URL; resolves with the head of the answer. Not with `fetch`: that of Node 24 throws where nobody can catch it
 * when a server ends its answer while the reader is slow (nodejs/undici#5360).
 */
function ask(url: URL, signal: AbortSignal, trust?: SecureContext): Promise<IncomingMessage> {
  const request = url.protocol === 'https:' ? requestHttps : requestHttp
  // A connection for each: one that is kept may be closed by the time it is wanted again.
  const headers = { 'accept-encoding': 'identity', connection: 'close' }
  return new Promise((resolve, reject) => {
    const asking = request(url, { headers, signal, ...(trust && { secureContext: trust }) }, resolve)
    // What goes wrong after the head is told to whoever reads the body, too.
    asking.on('error', reject)
    asking.end()
  })
}

/** As `ask`; a server of whose CA Node knows nothing may be one that this host trusts. */
async function askTrusted(url: URL, signal: AbortSignal): Promise<IncomingMessage> {
  try {
    return await ask(url, signal)
  } catch (error) {
    if (signal.aborted || !isUntrusted((error as NodeJS.ErrnoException).code)) throw error
    return ask(url, signal, hostTrust())
  }
}

async function get(first: string, signal: AbortSignal): Promise<IncomingMessage> {
  let url = new URL(first)
  for (let hop = 0; hop <= mostRedirects; hop++) {
    if (!/^https?:$/.test(url.protocol)) throw failed(first, `${url.protocol} is not http or https`)
    if (url.username !== '' || url.password !== '') {
      // Not named: what is said here stands in the machine's status.
      const [what, at] = hop === 0 ? ['it', ''] : ['a redirect', ` of ${first}`]
      throw new PlasmaError(
        'DownloadFailed',
        `download${at} failed: ${what} has a user name or password in its URL`,
        {
          hint: 'use a URL that needs none, such as a presigned one',
        },
      )
    }
    const response = await askTrusted(url, signal)
    const { statusCode = 0, headers } = response
    if (statusCode < 300 || statusCode > 399 || headers.location === undefined) return response
    response.destroy()
    url = new URL(headers.location, url)
  }
  throw failed(first, `more than ${mostRedirects} redirects`)
}

function tooLong(url: string, bytes: number, limit: number): PlasmaError {
  const size = approximateQuantity(bytes)
  return new PlasmaError(
    'NoSpace',
    `${url} has ${size} or more, and only ${approximateQuantity(limit)} are free`,
  )
}

async function copy(
  body: AsyncIterable<Uint8Array>,
  file: FileHandle,
  total: number,
  job: Download,
  alive: () => void,
) {
  const hash = createHash('sha256')
  let bytes = 0
  const short = () => failed(job.url, `it ended after ${bytes} of ${total || 'all its'} bytes`)
  try {
    for await (const chunk of body) {
      alive()
      bytes += chunk.length
      if (bytes > job.limit) throw tooLong(job.url, bytes, job.limit)
      hash.update(chunk)
      await file.writeFile(chunk)
      if (total > 0) job.onPercent(Math.min(100, Math.floor((bytes * 100) / total)))
    }
  } catch (error) {
    // Node says of an answer that is cut short that it was aborted, by whomever.
    throw (error as NodeJS.ErrnoException).code === 'ECONNRESET' ? short() : error
  }
  if (total > 0 && bytes !== total) throw short()
  return hash.digest('hex')
}

async function transfer(job: Download, signal: AbortSignal, alive: () => void): Promise<string> {
  const response = await get(job.url, signal)
  try {
    const { statusCode = 0, statusMessage = '' } = response
    if (statusCode !== 200) throw failed(job.url, `the server answered ${statusCode} ${statusMessage}`.trim())
    const total = Number(response.headers['content-length'] ?? 0)
    if (total > job.limit) throw tooLong(job.url, total, job.limit)
    const file = await open(job.to, 'w', 0o600)
    try {
      return await copy(response, file, total, job, alive)
    } finally {
      await file.close()
    }
  } finally {
    response.destroy()
  }
}

/**
 * Streams a URL into a file, at most five redirects deep.
 * @returns the SHA-256 of what came, in hex
 * @throws PlasmaError `DownloadFailed`, `NoSpace`, `Timeout`; the signal's reason where it was aborted
 */
export async function download(job: Download): Promise<string> {
  const own = new AbortController()
  const seconds = job.stallMs / 1000
  const stalled = () => own.abort(failed(job.url, `the server sent nothing for ${seconds} s`))
  let cancel = job.clock.after(job.stallMs, stalled)
  const alive = () => {
    cancel()
    cancel = job.clock.after(job.stallMs, stalled)
  }
  const both = AbortSignal.any([own.signal, job.signal])
  try {
    return await withDeadline(mostMs, `download of ${job.url}`, (signal) => transfer(job, signal, alive), {
      signal: both,
      clock: job.clock,
    })
  } catch (error) {
    if (both.aborted) throw both.reason
    if (error instanceof PlasmaError || (error as NodeJS.ErrnoException).code === 'ENOSPC') throw error
    throw failedBy(job.url, error)
  } finally {
    cancel()
    own.abort()
  }
}

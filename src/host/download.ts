import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import type { Clock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { PlasmaError } from '../lib/errors.ts'
import { approximateQuantity } from '../resources/quantity.ts'

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

/** The text of a fetch error: undici hides the reason in `cause`. */
function reason(error: unknown): string {
  const { message, cause } = error as Error
  return cause instanceof Error ? cause.message || String((cause as NodeJS.ErrnoException).code) : message
}

async function get(first: string, signal: AbortSignal): Promise<Response> {
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
    const response = await fetch(url, {
      redirect: 'manual',
      signal,
      headers: { 'accept-encoding': 'identity' },
    })
    const location = response.headers.get('location')
    if (response.status < 300 || response.status > 399 || location === null) return response
    await response.body?.cancel()
    url = new URL(location, url)
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

async function copy(body: ReadableStream, file: FileHandle, total: number, job: Download, alive: () => void) {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    alive()
    bytes += chunk.length
    if (bytes > job.limit) throw tooLong(job.url, bytes, job.limit)
    hash.update(chunk)
    await file.writeFile(chunk)
    if (total > 0) job.onPercent(Math.min(100, Math.floor((bytes * 100) / total)))
  }
  if (total > 0 && bytes !== total) throw failed(job.url, `it ended after ${bytes} of ${total} bytes`)
  return hash.digest('hex')
}

async function transfer(job: Download, signal: AbortSignal, alive: () => void): Promise<string> {
  const response = await get(job.url, signal)
  if (!response.ok || !response.body) {
    await response.body?.cancel()
    throw failed(job.url, `the server answered ${response.status} ${response.statusText}`.trim())
  }
  const total = Number(response.headers.get('content-length') ?? 0)
  if (total > job.limit) {
    await response.body.cancel()
    throw tooLong(job.url, total, job.limit)
  }
  const file = await open(job.to, 'w', 0o600)
  try {
    return await copy(response.body, file, total, job, alive)
  } finally {
    await file.close()
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
    throw failed(job.url, reason(error))
  } finally {
    cancel()
    own.abort()
  }
}

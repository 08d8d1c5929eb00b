import type { IncomingMessage } from 'node:http'
import { type Clock, sleep } from '../lib/clock.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError } from './errors.ts'
import { errorOfStatus } from './kube-errors.ts'
import type { KubeHttp } from './kube-http.ts'
import type { Query } from './kube-paths.ts'

export interface KubeFrame {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  /** As it came. */
  readonly object: Record<string, unknown>
}

export interface KubeWatchOptions {
  readonly http: KubeHttp
  readonly clock: Clock
  readonly path: string
  readonly query: Query
  /** Events after it follow. */
  readonly resourceVersion: string
  readonly signal: AbortSignal
  /** 0 to 1, to spread what many watchers do. */
  readonly random: () => number
  /** After so long the server ends a watch, ms; it is then taken up where it was. */
  readonly watchMs?: number
  /** How long after that a watch counts as dead which its server has not ended, ms: no watch is silent for ever. */
  readonly graceMs?: number
}

const defaultWatchMs = 120_000
const defaultGraceMs = 10_000
/** Between two tries of one watch, ms. */
const [pauseMs, pauseCapMs] = [200, 5_000]
/** Failures in a row after which the whole list is asked for anew. */
const maxFailures = 5
/** No object is larger than this in any store. */
const maxFrameBytes = 8 << 20

const passing: ReadonlySet<string> = new Set([
  'ServiceUnavailable',
  'Timeout',
  'TooManyRequests',
  'InternalError',
])

/**
 * The events of a collection, one watch of the server after the other, each taken up where the one before ended. Ends
 * quietly when the signal is aborted.
 * @throws ApiError `Expired` when events were missed; what else the server says, or the last of several failures in a row
 */
export async function* watchKube(options: KubeWatchOptions): AsyncGenerator<KubeFrame> {
  const { clock, signal } = options
  let { resourceVersion } = options
  let failures = 0
  while (!signal.aborted) {
    const began = clock.elapsed()
    let waitSeconds = 0
    try {
      for await (const { type, object } of watchOnce({ ...options, resourceVersion })) {
        failures = 0
        resourceVersion = versionOf(object) ?? resourceVersion
        if (type !== 'BOOKMARK') yield { type, object }
      }
      if (signal.aborted) return
      // Kubernetes ends a watch when its time is over; one that ends at once, again and again, is a failure.
      if (clock.elapsed() - began > pauseCapMs) failures = 0
      else failures += 1
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError) || !passing.has(error.reason)) throw error
      failures += 1
      if (failures >= maxFailures) throw error
      waitSeconds = error.details.retryAfterSeconds ?? 0
    }
    const pause = failures === 0 ? 0 : pauseMs * 2 ** (failures - 1)
    const ms = Math.min(pauseCapMs, Math.max(pause, waitSeconds * 1_000)) * (1 + options.random() / 4)
    await sleep(clock, ms, signal).catch(() => {})
  }
}

type Frame = { readonly type: KubeFrame['type'] | 'BOOKMARK'; readonly object: Record<string, unknown> }

async function* watchOnce(options: KubeWatchOptions): AsyncGenerator<Frame> {
  const { http, clock, path, query, resourceVersion, signal, random } = options
  const { watchMs = defaultWatchMs, graceMs = defaultGraceMs } = options
  // Not all at once after a restart of the server.
  const seconds = Math.ceil((watchMs / 1_000) * (0.75 + random() / 2))
  const asked = {
    ...{ ...query, watch: 'true', allowWatchBookmarks: 'true', resourceVersion },
    timeoutSeconds: String(seconds),
  }
  const answer = await http.stream({ method: 'GET', path, query: asked }, signal)
  const late = { yes: false }
  const cancel = clock.after(seconds * 1_000 + graceMs, () => {
    late.yes = true
    answer.destroy()
  })
  try {
    for await (const line of linesOf(answer)) yield frameOf(line)
  } catch (error) {
    if (error instanceof ApiError) throw error
    const why = late.yes ? 'it was silent beyond its time' : 'the connection broke'
    throw new ApiError('ServiceUnavailable', `the watch of ${path} ended: ${why}`, {}, { cause: error })
  } finally {
    cancel()
    answer.destroy()
  }
}

/** @throws ApiError of an ERROR frame */
function frameOf(line: string): Frame {
  let frame: unknown
  try {
    frame = JSON.parse(line)
  } catch (cause) {
    throw new ApiError('InternalError', 'the API server sent a watch event that is no JSON', {}, { cause })
  }
  if (!isRecord(frame) || !isRecord(frame['object']))
    throw new ApiError('InternalError', 'the API server sent a watch event without an object')
  const { type, object } = frame
  if (type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED' || type === 'BOOKMARK')
    return { type, object }
  throw errorOfStatus(500, object)
}

function versionOf({ metadata }: Record<string, unknown>): string | undefined {
  const version = isRecord(metadata) ? metadata['resourceVersion'] : undefined
  return typeof version === 'string' && version !== '' ? version : undefined
}

/** The lines of an answer; what comes after the last line end is part of an event that was cut off. */
async function* linesOf(answer: IncomingMessage): AsyncGenerator<string> {
  let parts: Buffer[] = []
  let size = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const line = Buffer.concat([...parts, chunk.subarray(from, at)]).toString('utf8')
      parts = []
      size = 0
      from = at + 1
      if (line.trim() !== '') yield line
    }
    const rest = chunk.subarray(from)
    size += rest.length
    if (size > maxFrameBytes)
      throw new ApiError('InternalError', `a watch event has more than ${maxFrameBytes >> 20} MiB`)
    if (rest.length > 0) parts.push(rest)
  }
}

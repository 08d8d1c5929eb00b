import { connect } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { type Nbd, nbdUrl } from '../resources/nbd.ts'
import { type ExportInfo, NbdHandshake } from './nbd-codec.ts'

export interface ProbeOptions {
  readonly signal: AbortSignal
  readonly clock: Clock
  /** For all of it, from the name to the last answer; 10 000 unless given. */
  readonly deadlineMs?: number
}

const defaultDeadlineMs = 10_000

/** How far a probe got, for the words of one that took too long. */
interface Progress {
  connected: boolean
  spoke: boolean
}

/**
 * Asks an NBD server for an export by a real handshake, which opens nothing, and hangs up.
 * @throws PlasmaError naming the field below `field` (`spec.disks[0].nbd`); the signal's reason when it is aborted
 */
export async function probeNbd(nbd: Nbd, field: string, options: ProbeOptions): Promise<ExportInfo> {
  const { signal, clock, deadlineMs = defaultDeadlineMs } = options
  const progress: Progress = { connected: false, spoke: false }
  try {
    const work = (own: AbortSignal) => handshake(nbd, own, progress)
    return await withDeadline(deadlineMs, 'the NBD server', work, { signal, clock })
  } catch (error) {
    signal.throwIfAborted()
    throw inWords(error, nbd, field, progress)
  }
}

/** @throws what the server, the codec or the network says */
function handshake(nbd: Nbd, signal: AbortSignal, progress: Progress): Promise<ExportInfo> {
  const { host, port, exportName } = nbd
  const codec = new NbdHandshake(exportName)
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port })
    const end = () => socket.destroy()
    signal.addEventListener('abort', end, { once: true })
    if (signal.aborted) end()
    socket.on('connect', () => {
      progress.connected = true
    })
    socket.on('data', (chunk) => {
      progress.spoke = true
      try {
        const out = codec.push(chunk)
        if (codec.result) {
          resolve(codec.result)
          // What it answers to the goodbye is nobody's business.
          socket.removeAllListeners('data')
          socket.end(out)
          socket.resume()
          socket.setTimeout(1_000, end)
        } else if (out.length > 0) socket.write(out)
      } catch (error) {
        reject(error)
        end()
      }
    })
    socket.on('error', reject)
    socket.on('close', () => {
      signal.removeEventListener('abort', end)
      reject(new PlasmaError('NbdHungUp', 'it closed the connection'))
    })
  })
}

/** What to do about it, by code or errno, and below which field. */
const advice: Readonly<Record<string, readonly [string, string]>> = {
  NotNbd: ['', 'correct host and port'],
  NbdTooOld: ['', 'serve the export with a newer server, such as qemu-nbd or nbdkit'],
  ExportUnknown: ['.exportName', 'serve an export of that name (qemu-nbd --export-name), or correct it'],
  ExportRefused: ['.exportName', 'look at the log of the server'],
  TlsRequired: ['', 'serve the export without TLS; disks over NBD are unencrypted'],
  ENOTFOUND: ['.host', 'correct it, or make it known to this host (DNS, /etc/hosts)'],
  EAI_AGAIN: ['.host', 'look at the DNS of this host'],
  ECONNREFUSED: ['', 'start the server, or correct host and port'],
}

const errnoWords: Readonly<Record<string, string>> = {
  ENOTFOUND: 'this host knows no address of that name',
  EAI_AGAIN: 'its name can’t be resolved right now',
  ECONNREFUSED: 'nothing listens there (connection refused)',
  EHOSTUNREACH: 'there is no way to it (host unreachable)',
  ENETUNREACH: 'there is no way to it (network unreachable)',
  ETIMEDOUT: 'it does not answer',
  ECONNRESET: 'it closed the connection',
}

function timeoutWords({ connected, spoke }: Progress): readonly [string, string] {
  if (!connected) return ['it does not answer in time', 'look at the server and the network']
  if (spoke) return ['it stopped in the middle of its answer', 'look at the server']
  return [
    'it takes the connection and says nothing',
    'it may have all the clients that it allows (qemu-nbd --shared), or be no NBD server',
  ]
}

/** The errno of a failed connection; of one that tried several addresses, that of the first. */
function causeOf(error: unknown): unknown {
  return error instanceof AggregateError ? (error.errors[0] ?? error) : error
}

function inWords(thrown: unknown, nbd: Nbd, field: string, progress: Progress): PlasmaError {
  const error = causeOf(thrown)
  const code = (error instanceof PlasmaError ? error.code : errnoOf(error)) ?? 'Failed'
  const say = (member: string, words: string, hint: string) => {
    const message = `${field}${member}: ${nbdUrl(nbd)} can't be used: ${words}`
    return new PlasmaError('DiskUnreachable', message, { hint: `${hint}; it is tried again`, cause: thrown })
  }
  if (code === 'Timeout') return say('', ...timeoutWords(progress))
  const [member, hint] = advice[code] ?? ['', 'look at the server and the network']
  return say(member, errnoWords[code] ?? messageOf(error), hint)
}

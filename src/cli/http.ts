import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { Agent, type RequestOptions, request } from 'node:https'
import { isIP } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import { defaultAddress } from '../lib/dirs.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import type { TlsTrust } from './access.ts'

/** The largest answer read into memory. */
const maxAnswerBytes = 256 << 20

export interface HttpRequest {
  readonly method: string
  readonly url: URL
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  readonly body?: string | undefined
}

/** HTTPS with kept connections to one server, trusting one CA. */
export interface Http {
  /** Resolves when the answer's head is there, within `timeoutMs`. @throws PlasmaError NoServer, Timeout, Untrusted */
  send(request: HttpRequest, timeoutMs: number, signal?: AbortSignal): Promise<IncomingMessage>
  close(): void
}

const untrusted = /^(CERT_|DEPTH_ZERO|UNABLE_TO_|SELF_SIGNED|ERR_TLS_CERT)/

const unreachable = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT']
/** What a program that speaks something else looks like: to TLS (OpenSSL's reasons), and to HTTP above it. */
const foreign = /^(EPROTO$|ERR_SSL_|HPE_)/

/** How to get a server where none answers. */
function startHint(address: string, flags: string): string {
  if (flags.includes('--kubeconfig') || flags.includes('--context'))
    return 'start it, or choose another context with --context'
  const [, host = ''] = /^\[?(.*?)\]?:\d+$/.exec(address) ?? []
  // A server listens on addresses: of a name it is not known here whose it is.
  if (isIP(host) === 0) return 'start one on that host, or name another with --server or PLASMAVMC_SERVER'
  const others = flags.replace(/ ?--server ('[^']*'|\S+)/, '').trim()
  const start = ['plasmavmc serve', others, address === defaultAddress ? '' : `--listen ${address}`]
  return `start one with '${start.filter(Boolean).join(' ')}', or name another with --server or PLASMAVMC_SERVER`
}

/** A failed connection in words of what to do. `address` is what was dialled; `flags` repeats how. */
export function connectionError(error: unknown, address: string, flags: string): PlasmaError {
  if (error instanceof PlasmaError) return error
  const code = errnoOf(error) ?? ''
  const failed = (reason: string, message: string, hint: string) =>
    new PlasmaError(reason, message, { hint, cause: error })
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    const host = address.replace(/:\d+$/, '')
    const why = code === 'ENOTFOUND' ? 'is not known' : 'could not be looked up just now'
    return failed(
      'NoServer',
      `the name "${host}" ${why} (${code})`,
      'check --server or PLASMAVMC_SERVER, and DNS',
    )
  }
  if (unreachable.includes(code))
    return failed(
      'NoServer',
      `no PlasmaVMC server answers on ${address} (${code})`,
      startHint(address, flags),
    )
  if (untrusted.test(code)) {
    return failed(
      'Untrusted',
      `the server on ${address} is not the one this CA vouches for (${code})`,
      'another server has that address, or its data was made anew: check --server and --data-dir',
    )
  }
  if (foreign.test(code)) {
    return failed(
      'NotOurs',
      `what listens on ${address} does not speak ${code.startsWith('HPE_') ? 'HTTP' : 'TLS'}: is it another program?`,
      'look who has that port (ss -ltnp), and name the address of the PlasmaVMC server with --server or PLASMAVMC_SERVER',
    )
  }
  const why = code === 'ECONNRESET' ? 'the server went away' : messageOf(error)
  return failed(
    'ConnectionLost',
    `the connection to ${address} broke: ${why}`,
    'see whether the server still runs; repeat the command when it does',
  )
}

/** @param trust its CA, where there is one, is the only one that is trusted */
export function openHttp(trust: TlsTrust, clock: Clock, describe: { address: string; flags: string }): Http {
  const agent = new Agent({ keepAlive: true, ...trust, maxSockets: 8 })
  return {
    send: (wanted, timeoutMs, signal) =>
      new Promise((resolve, reject) => {
        const { method, url, headers, body } = wanted
        const options: RequestOptions = {
          method,
          headers: headers as OutgoingHttpHeaders,
          agent,
          ...(signal ? { signal } : {}),
        }
        const outgoing = request(url, options)
        const cancel = clock.after(timeoutMs, () =>
          outgoing.destroy(
            new PlasmaError(
              'Timeout',
              `${describe.address} did not answer ${method} ${url.pathname} in ${timeoutMs / 1000} s`,
              {
                hint: 'the server may be overloaded: look at its log, then repeat',
              },
            ),
          ),
        )
        outgoing.once('response', (answer) => {
          cancel()
          resolve(answer)
        })
        outgoing.once('error', (error) => {
          cancel()
          reject(signal?.aborted ? signal.reason : connectionError(error, describe.address, describe.flags))
        })
        outgoing.end(body)
      }),
    close: () => agent.destroy(),
  }
}

/** The whole body as text; given up after `timeoutMs` or {@link maxAnswerBytes}. */
export async function readText(answer: IncomingMessage, clock: Clock, timeoutMs: number): Promise<string> {
  const cancel = clock.after(timeoutMs, () =>
    answer.destroy(new PlasmaError('Timeout', `the answer did not end within ${timeoutMs / 1000} s`)),
  )
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > maxAnswerBytes) {
        throw new PlasmaError('TooLarge', `the answer has more than ${maxAnswerBytes >> 20} MiB`, {
          hint: 'ask for less: name a namespace or a selector',
        })
      }
      chunks.push(chunk)
    }
  } finally {
    cancel()
  }
  return Buffer.concat(chunks).toString('utf8')
}

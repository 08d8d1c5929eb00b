import { errnoOf, messageOf, PlasmaError } from './lib/errors.ts'

export interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port`, with brackets around an IPv6 address. */
export function addressText({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** Why an address can't be listened on, by the flag that names it and with what to do. */
export function listenError(flag: '--listen' | '--grpc-listen', at: Address, error: unknown): PlasmaError {
  const address = addressText(at)
  const code = errnoOf(error) ?? ''
  if (code === 'EADDRINUSE') {
    const hint = `another server may run already; choose another address with ${flag}`
    return new PlasmaError('PortTaken', `${flag}: ${address} is in use`, { hint, cause: error })
  }
  const words: Readonly<Record<string, string>> = {
    EACCES: 'ports below 1024 need root',
    EADDRNOTAVAIL: 'this machine has no such address',
    ENOTFOUND: 'the host name is not known',
    EAI_AGAIN: 'the host name could not be looked up',
  }
  const example = flag === '--listen' ? '127.0.0.1:7443' : '127.0.0.1:50051'
  return new PlasmaError('ListenFailed', `${flag}: ${address}: ${words[code] ?? messageOf(error)}`, {
    hint: `such as ${flag} ${example}`,
    cause: error,
  })
}

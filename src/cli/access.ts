import { randomUUID } from 'node:crypto'
import { readCredentials } from '../auth/credentials.ts'
import { signRequest } from '../auth/sign.ts'
import type { Clock } from '../lib/clock.ts'
import { type Connection, readCa } from './connection.ts'
import type { Io } from './io.ts'

/** How to trust a server and be known to it, as `node:tls` takes it. */
export interface TlsTrust {
  /** PEM; what Node.js trusts where absent. */
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly servername?: string
  /** False: whoever answers is trusted. */
  readonly rejectUnauthorized?: boolean
}

export interface Outgoing {
  readonly method: string
  readonly url: URL
  /** What is to be signed, where there is a signature. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** A server, and what proves to it who we are. */
export interface Access {
  readonly connection: Connection
  readonly trust: TlsTrust
  /** Before the path of each request; empty but behind some proxies. */
  readonly prefix: string
  /** The headers of a request with those that prove who sends it. @throws PlasmaError */
  prove(request: Outgoing): Promise<Record<string, string>>
}

/** Signed with the key of a data directory, or of the environment. @throws PlasmaError where CA or key can't be read */
export function signedAccess(connection: Connection, clock: Clock, env: Io['env']): Access {
  const ca = readCa(connection.dataDir)
  const credentials = readCredentials(connection.dataDir, env)
  const scope = { region: 'local', service: 'plasmavmc' }
  const prove = async ({ method, url, headers, body }: Outgoing) =>
    signRequest({
      ...{ method, url, body, credentials, now: clock.now(), ...scope },
      // Two equal requests of one second would have one signature, and the second one would count as a replay.
      headers: { ...headers, ...(method !== 'GET' && { 'amz-sdk-invocation-id': randomUUID() }) },
    })
  return { connection, trust: { ca }, prefix: '', prove }
}

/** Headers as they are sent; one that stands more than once is a list. */
export type SentHeaders = Record<string, string | string[]>

/** The headers of a request with those that prove who sends it, and whom they want to be. @throws PlasmaError */
export async function proved(access: Access, request: Outgoing): Promise<SentHeaders> {
  const { user, groups = [] } = access.connection.as ?? {}
  const headers = {
    ...request.headers,
    ...(user !== undefined && { 'impersonate-user': user }),
    // Signed as they are joined where a header stands more than once (SigV4), and sent one by one.
    ...(groups.length > 0 && { 'impersonate-group': groups.join(',') }),
  }
  const sent = await access.prove({ ...request, headers })
  return { ...sent, ...(groups.length > 0 && { 'impersonate-group': [...groups] }) }
}

import { openClient } from './client.ts'
import type { Connection } from './connection.ts'
import type { Io } from './io.ts'

const askMs = 5_000

/** Whether a text can be the id of a cluster: it becomes a header, and a word of a command line. */
export const isClusterId = (text: string): boolean => /^[A-Za-z0-9.-]{1,128}$/.test(text)

/**
 * Which cluster a server says that it is; undefined where it does not answer, or has none.
 * @throws PlasmaError where the CA or the credentials can't be read: then nothing was asked
 */
export async function askClusterId(
  connection: Connection,
  io: Pick<Io, 'clock' | 'env' | 'signal'>,
): Promise<string | undefined> {
  const client = openClient(connection, io.clock, io.env, () => {}, io.signal)
  try {
    const { clusterId } = await client.json<{ clusterId?: unknown }>('GET', '/version', {
      timeoutMs: askMs,
    })
    return typeof clusterId === 'string' && isClusterId(clusterId) ? clusterId : undefined
  } catch {
    return undefined
  } finally {
    client.close()
  }
}

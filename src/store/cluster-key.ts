import { randomBytes } from 'node:crypto'
import { PlasmaError } from '../lib/errors.ts'
import type { Kv } from './kv.ts'

/** Where the key is kept by which hosts of a cluster know each other: beside the objects, seen by no API. */
export const clusterKeyPlace = '/plasmavmc.io/cluster-key'
const keyBytes = 32

/**
 * The key of the cluster, made by whoever asks first.
 * @throws PlasmaError `BadClusterKey` where something else lies there; ApiError where the store can't be used
 */
export async function clusterKey(
  kv: Kv,
  newKey: () => Buffer = () => randomBytes(keyBytes),
): Promise<Buffer> {
  const there = await kv.get(clusterKeyPlace)
  if (there) return parse(there.value)
  const key = newKey()
  if ((await kv.put(clusterKeyPlace, key.toString('base64'), 0n)) !== undefined) return key
  return parse((await kv.get(clusterKeyPlace))?.value ?? '')
}

function parse(text: string): Buffer {
  const key = Buffer.from(text, 'base64')
  if (key.length === keyBytes) return key
  throw new PlasmaError(
    'BadClusterKey',
    `the store holds no key of ${keyBytes} bytes at ${clusterKeyPlace}`,
    {
      hint: 'remove it, then restart every guard: they make a new one',
    },
  )
}

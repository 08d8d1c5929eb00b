import { createHash } from 'node:crypto'
import { z } from 'zod'
import { PlasmaError } from '../lib/errors.ts'
import { ApiError } from './errors.ts'

/** What is known of an etcd: which one it is, and that so much of its history was there. */
export interface EtcdSeen {
  /** As etcd gives it: a decimal number. */
  readonly clusterId: string
  /** The highest revision that was seen. */
  readonly revision: bigint
  /** A write that was seen: an etcd that went back and has come as far again since has another one in its place. */
  readonly witness?: Witness
}

export interface Witness {
  /** As etcd has it, prefix and all. */
  readonly key: string
  /** The revision of the write. */
  readonly revision: bigint
  /** What `hashOf` gives for the value. */
  readonly hash: string
}

/** What a value is recognized by: it may be long, and may be nobody's business. */
export const hashOf = (value: string): string => createHash('sha256').update(value).digest('base64')

/** The same as it is kept in the data folder of a server, from one of its lives to the next. */
export interface SeenRecord extends EtcdSeen {
  /** When it was written, RFC 3339. */
  readonly at: string
}

/** The id of a cluster as `etcdctl` prints it. */
export const hexId = (id: string): string => BigInt(id).toString(16)

/**
 * Why an etcd that answers as `now` is not the one that was seen, or has forgotten what it acknowledged; undefined where
 * neither can be told. Pure.
 */
export function misfit(seen: EtcdSeen, now: EtcdSeen): string | undefined {
  if (now.clusterId !== seen.clusterId)
    return `is another etcd (cluster ${hexId(now.clusterId)}) than before (${hexId(seen.clusterId)})`
  if (now.revision < seen.revision)
    return `is at revision ${now.revision}, but revision ${seen.revision} was there: ${wentBack}`
  return undefined
}

const wentBack = 'it has lost data, or was restored from a backup'

/**
 * Why an etcd that has `found` as its witness's key at the witness's revision is not the one that was seen; undefined
 * where it may be. Pure.
 */
export function contradicts(
  { key, revision, hash }: Witness,
  found: { readonly revision: bigint; readonly value: string } | undefined,
): string | undefined {
  if (found?.revision === revision && hashOf(found.value) === hash) return undefined
  return `has another history: revision ${revision} was a write to ${key} that is not there any more: ${wentBack}`
}

/** An etcd that is not the one it was; `code` stays that of an ApiError, as clients are told the same. */
export class EtcdReplaced extends ApiError {
  constructor(endpoint: string, why: string) {
    const hint =
      'nothing is read or written; look at etcd first, then restart the server, with --accept-store-reset where that store is to count'
    super('ServiceUnavailable', `etcd: ${endpoint} ${why}`, {}, { hint })
    this.name = 'EtcdReplaced'
  }
}

const version = 1

/** The text of a record. */
export function formatSeen({ clusterId, revision, witness, at }: SeenRecord): string {
  const text = (one: { readonly revision: bigint }) => ({ ...one, revision: String(one.revision) })
  const seen = { clusterId, revision: String(revision), ...(witness && { witness: text(witness) }) }
  return `${JSON.stringify({ version, ...seen, at })}\n`
}

const revisionText = z
  .string()
  .regex(/^\d{1,19}$/)
  .transform(BigInt)

const record = z.object({
  version: z.literal(version),
  clusterId: z.string().regex(/^\d{1,20}$/),
  revision: revisionText,
  witness: z.object({ key: z.string().min(1), revision: revisionText, hash: z.string().min(1) }).optional(),
  at: z.iso.datetime(),
})

/** @throws PlasmaError `BadStoreRecord` where the text is none, or a part of one */
export function parseSeen(text: string): SeenRecord {
  const bad = (why: string, cause?: unknown) => new PlasmaError('BadStoreRecord', why, { cause })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw bad(text.trim() === '' ? 'it is empty' : 'it is torn, or no JSON', cause)
  }
  const { data, error } = record.safeParse(value)
  if (!data)
    throw bad(error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; '), error)
  const { clusterId, revision, witness, at } = data
  return { clusterId, revision, ...(witness && { witness }), at }
}

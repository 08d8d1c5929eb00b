/** What keeps clients of gRPC from taking more than their share. */
export interface GrpcLimits {
  readonly connections: number
  /** Calls of one connection at once. */
  readonly streams: number
  /** Longest request and longest answer. */
  readonly messageBytes: number
  readonly answerBytes: number
  /** From the head of a call to the end of its request. */
  readonly requestMs: number
  /** How long a connection may have no call. */
  readonly idleMs: number
  /** Longest watch, and longest talk with the reflection service. */
  readonly streamMs: number
  /** How long a watcher may take nothing. */
  readonly stalledMs: number
  /** How long calls under way may take when the server stops. */
  readonly graceMs: number
}

export const defaultGrpcLimits: GrpcLimits = {
  connections: 500,
  streams: 100,
  messageBytes: 1024 * 1024,
  // What clients take unless told.
  answerBytes: 4 * 1024 * 1024,
  requestMs: 30_000,
  idleMs: 300_000,
  streamMs: 3_600_000,
  stalledMs: 30_000,
  graceMs: 1_000,
}

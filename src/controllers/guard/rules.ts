/**
 * Times of docs/adr/0007-cluster.md, section "The brake", ms. They belong together and to all hosts of a cluster, so
 * that they are no settings. Whoever held by an answer has stopped its machines `answerGoodMs` + the time to stop after
 * that answer at the latest, which must be less than `quietMs`.
 */
export interface Rules {
  /** How long an answer counts, from when its question was sent. */
  readonly answerGoodMs: number
  /** Between saying "I have lost the store" and consenting that a host's lease be taken, in either order. */
  readonly quietMs: number
  /** Between two questions to the same host: an answer that is lost must not end a hold. */
  readonly askEveryMs: number
}

export const rules: Rules = { answerGoodMs: 2_000, quietMs: 5_000, askEveryMs: 500 }

/** How long stopping machines takes at most, ms: what a host announces in its lease. */
export const stopMs = 2_500

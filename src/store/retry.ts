import { isReason } from './errors.ts'

/**
 * Runs a read-change-write pass again while it loses to another writer, at most `tries` times.
 * @throws ApiError `Conflict` of the last try; everything else at once
 */
export async function retryOnConflict<T>(pass: () => Promise<T>, tries = 5): Promise<T> {
  for (let left = tries; ; left -= 1) {
    try {
      return await pass()
    } catch (error) {
      if (left <= 1 || !isReason(error, 'Conflict')) throw error
    }
  }
}

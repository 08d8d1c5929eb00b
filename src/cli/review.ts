import type { Client } from './client.ts'

/** Asks a review: an object that the server answers with its status filled in. @throws ServerError */
export function review<T>(client: Client, kind: string, group: string, spec?: object): Promise<T> {
  const path = `/apis/${group}/v1/${kind.toLowerCase()}s`
  return client.json<T>('POST', path, { body: { apiVersion: `${group}/v1`, kind, ...(spec && { spec }) } })
}

export interface SelfReview {
  readonly status: {
    readonly userInfo: {
      readonly username: string
      readonly groups?: readonly string[]
      readonly extra?: Readonly<Record<string, readonly string[]>>
    }
  }
}

/** Whom the server takes us for. @throws ServerError */
export const selfReview = (client: Client): Promise<SelfReview> =>
  review(client, 'SelfSubjectReview', 'authentication.k8s.io')

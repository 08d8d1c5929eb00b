/** The only algorithm spoken here. */
export const algorithm = 'AWS4-HMAC-SHA256'

/** Presigned URLs live at most seven days (SigV4, X-Amz-Expires). Seconds. */
export const maxExpiresSeconds = 604_800

/** What a signing key is good for. `date` is YYYYMMDD in UTC. */
export interface Scope {
  readonly date: string
  readonly region: string
  readonly service: string
}

/** CredentialScope of the specification: `20150830/us-east-1/iam/aws4_request`. */
export function scopeText({ date, region, service }: Scope): string {
  return `${date}/${region}/${service}/aws4_request`
}

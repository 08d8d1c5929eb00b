/** Who a request comes from, in Kubernetes' terms. */
export interface Identity {
  readonly name: string
  readonly groups: readonly string[]
  /** The id of the key that signed; absent where it is impersonated. */
  readonly accessKeyId?: string
}

/** Members may do everything; Kubernetes' own name for it. */
export const mastersGroup = 'system:masters'

/** Every identity that proved itself is a member. */
export const authenticatedGroup = 'system:authenticated'

/** What an access key stands for. */
export interface AccessKey {
  readonly secret: string
  readonly identity: Identity
  readonly disabled?: boolean
  /** Wall milliseconds from which on it is refused. */
  readonly expiresAt?: number
}

/** Looks an access key up by its id. */
export type SecretOf = (accessKeyId: string) => AccessKey | undefined

/** The identity of the key made on first start. */
export const bootstrapIdentity: Identity = {
  name: 'admin',
  groups: [mastersGroup, authenticatedGroup],
}

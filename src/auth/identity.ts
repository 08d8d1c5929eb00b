/** Who a request comes from, in Kubernetes' terms. */
export interface Identity {
  readonly name: string
  readonly groups: readonly string[]
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
}

/** Looks an access key up by its id. */
export type SecretOf = (accessKeyId: string) => AccessKey | undefined

/** The identity of the key made on first start. */
export const bootstrapIdentity: Identity = {
  name: 'admin',
  groups: [mastersGroup, authenticatedGroup],
}

import type { Identity } from '../../auth/identity.ts'
import type { ServerDeps } from '../deps.ts'
import type { ResourcePath } from '../path.ts'
import { type Asked, askedFor, authorizeCall } from './admission.ts'

/** One call of somebody who is known: what it turned out to be about, for the audit log. */
export class VmCall {
  readonly identity: Identity
  /** The client's program, as the accounts of who owns which field name it. */
  readonly userAgent: string
  asked: Asked | undefined
  readonly #deps: Pick<ServerDeps, 'authorize'>

  constructor(
    { identity, userAgent = '' }: { readonly identity: Identity; readonly userAgent?: string },
    deps: Pick<ServerDeps, 'authorize'>,
  ) {
    this.identity = identity
    this.userAgent = userAgent
    this.#deps = deps
  }

  /**
   * Must come before anything is read or done. @param shown what a refusal says in place of the path
   * @throws ApiError Forbidden
   */
  allow(method: 'GET' | 'POST' | 'DELETE', path: ResourcePath, shown?: ResourcePath): void {
    this.#allow(askedFor(method, path), path, shown)
  }

  /** As `allow`, for a watch. @throws ApiError Forbidden */
  allowWatch(path: ResourcePath): void {
    this.#allow(askedFor('GET', path, true), path)
  }

  #allow(asked: Asked, path: ResourcePath, shown = path): void {
    this.asked = asked
    authorizeCall(this.identity, asked, path, this.#deps, shown)
  }
}

/** A request target's path, as sent, and its query. */
export interface RequestTarget {
  readonly pathname: string
  readonly searchParams: URLSearchParams
}

/**
 * Splits a request target (RFC 9112 section 3.2.1) without resolving dots or a host in it: what is authorized must be
 * what was sent. One slash at the end is dropped.
 */
export function splitTarget(rawUrl: string): RequestTarget {
  const at = rawUrl.indexOf('?')
  const path = at < 0 ? rawUrl : rawUrl.slice(0, at)
  return {
    pathname: path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path,
    searchParams: new URLSearchParams(at < 0 ? '' : rawUrl.slice(at + 1)),
  }
}

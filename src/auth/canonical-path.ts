import { awsUriEncode, percentDecode } from './uri-encode.ts'

/** A path that is its own canonical form: nothing to encode, no dot segment, no empty one. */
const isCanonical = (path: string) =>
  /^\/[A-Za-z0-9\-._~/]*$/.test(path) && !path.includes('//') && !path.includes('/.')

/**
 * CanonicalURI of every service but S3: `.`, `..` and empty segments are resolved, then each segment of the path as
 * it is sent (encoded once already) is encoded once more. The empty path is `/`.
 */
export function canonicalPath(rawPath: string): string {
  if (isCanonical(rawPath)) return rawPath
  const segments: string[] = []
  for (const segment of rawPath.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment === '..') segments.pop()
    else segments.push(segment)
  }
  const path = segments.join('/')
  return awsUriEncode(`/${path}${path !== '' && rawPath.endsWith('/') ? '/' : ''}`, false)
}

/**
 * CanonicalURI of S3: each segment is encoded once, however it was encoded on its way, and none is resolved: keys of
 * objects may be `..` or empty. A slash that was sent as %2F stays one. The empty path is `/`.
 */
export function canonicalPathOnce(rawPath: string): string {
  const path = rawPath.startsWith('/') ? rawPath : `/${rawPath}`
  return path
    .split('/')
    .map((segment) => awsUriEncode(percentDecode(segment)))
    .join('/')
}

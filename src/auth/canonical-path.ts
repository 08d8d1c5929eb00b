import { awsUriEncode } from './uri-encode.ts'

/**
 * CanonicalURI of every service but S3: `.`, `..` and empty segments are resolved, then each segment of the path as
 * it is sent (encoded once already) is encoded once more. The empty path is `/`.
 */
export function canonicalPath(rawPath: string): string {
  const segments: string[] = []
  for (const segment of rawPath.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment === '..') segments.pop()
    else segments.push(segment)
  }
  const path = segments.join('/')
  return awsUriEncode(`/${path}${path !== '' && rawPath.endsWith('/') ? '/' : ''}`, false)
}

const unreserved = /[A-Za-z0-9\-._~]/

/** What every byte becomes, by its value. */
const encoded: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const char = String.fromCharCode(byte)
  return unreserved.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
})

/**
 * UriEncode of the Signature Version 4 specification: every byte of the UTF-8 text but RFC 3986's unreserved ones
 * becomes %XX with upper-case digits. `encodeSlash` false leaves `/` as it is, for paths.
 */
export function awsUriEncode(text: string | Uint8Array, encodeSlash = true): string {
  let out = ''
  for (const byte of typeof text === 'string' ? Buffer.from(text, 'utf8') : text) {
    out += byte === 0x2f && !encodeSlash ? '/' : encoded[byte]
  }
  return out
}

const unreserved = /[A-Za-z0-9\-._~]/
const allUnreserved = /^[A-Za-z0-9\-._~]*$/
const allInPath = /^[A-Za-z0-9\-._~/]*$/

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
  if (typeof text === 'string' && (encodeSlash ? allUnreserved : allInPath).test(text)) return text
  let out = ''
  for (const byte of typeof text === 'string' ? Buffer.from(text, 'utf8') : text) {
    out += byte === 0x2f && !encodeSlash ? '/' : encoded[byte]
  }
  return out
}

/** Decodes %XX to bytes; other characters are the bytes of their codes, and a stray % is itself. */
export function percentDecode(text: string): Buffer {
  const bytes: number[] = []
  for (let i = 0; i < text.length; i++) {
    const hex = text[i] === '%' ? /^[0-9A-Fa-f]{2}/.exec(text.slice(i + 1, i + 3)) : null
    if (hex) {
      bytes.push(Number.parseInt(hex[0], 16))
      i += 2
    } else bytes.push(text.charCodeAt(i) & 0xff)
  }
  return Buffer.from(bytes)
}

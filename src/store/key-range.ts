/** The smallest string after every string that starts with `prefix`, in UTF-8 order; prefixes here end in ASCII. */
export function endOfPrefix(prefix: string): string {
  const last = prefix.codePointAt(prefix.length - 1) ?? 0
  return prefix.slice(0, -1) + String.fromCodePoint(last + 1)
}

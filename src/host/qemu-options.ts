type Value = string | number | boolean | undefined

/**
 * A value inside one of QEMU's comma-separated option lists: a comma is written twice (qemu(1), "-drive").
 * The only place where this is done.
 */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,')
}

/**
 * One option list: `head,key=value,…`. Members that are undefined are left out; booleans become on and off.
 * The head (a driver, a machine type) is ours, never a user's text.
 */
export function optionList(head: string, members: Readonly<Record<string, Value>> = {}): string {
  const parts = head === '' ? [] : [head]
  for (const [key, value] of Object.entries(members)) {
    if (value === undefined) continue
    const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value)
    parts.push(`${key}=${escapeValue(text)}`)
  }
  return parts.join(',')
}

/** The members of an option list; doubled commas become commas. */
function splitList(text: string): string[] {
  const members: string[] = []
  let member = ''
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== ',') member += text[i]
    else if (text[i + 1] === ',') member += text[++i]
    else {
      members.push(member)
      member = ''
    }
  }
  return [...members, member]
}

/** An option list read back as QEMU reads it; a first member without `=` gets the key `implied`. */
export function parseOptionList(text: string, implied: string): ReadonlyMap<string, string> {
  const members = new Map<string, string>()
  for (const [index, member] of splitList(text).entries()) {
    const at = member.indexOf('=')
    if (at >= 0) members.set(member.slice(0, at), member.slice(at + 1))
    else members.set(index === 0 ? implied : member, index === 0 ? member : 'on')
  }
  return members
}

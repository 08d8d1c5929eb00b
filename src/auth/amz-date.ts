/** Wall milliseconds as X-Amz-Date: ISO 8601 basic format, UTC, `20150830T123600Z`. */
export function amzDate(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace(/[-:]/g, '')}Z`
}

/** The last one that was read: requests that come together were signed in the same second. */
let last: { readonly text: string; readonly ms: number } | undefined

/** Wall milliseconds of an X-Amz-Date; undefined for anything else, also for a day no calendar has. */
export function parseAmzDate(text: string): number | undefined {
  if (last?.text === text) return last.ms
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text)
  if (!match) return undefined
  const [, year, month, day, hour, minute, second] = match
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  if (Number.isNaN(ms) || amzDate(ms) !== text) return undefined
  last = { text, ms }
  return ms
}

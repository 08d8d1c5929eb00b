import { ApiError } from './errors.ts'

type Labels = Readonly<Record<string, string>>
type Test = (labels: Labels) => boolean
export type Selector = (labels: Labels | undefined) => boolean

const name =
  /^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const value = /^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/
/** Words, and what stands between them. */
const tokens = /\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)\s*/y
/** Longest selector; a request target has no more. */
const maxLength = 16_384

function tokensOf(text: string): string[] {
  const found: string[] = []
  tokens.lastIndex = 0
  for (let match = tokens.exec(text); match; match = tokens.exec(text)) {
    found.push(match[1] as string)
    if (tokens.lastIndex === text.length) break
  }
  return found
}

function own(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined
}

/** Reads requirements from tokens, from left to right. */
class Reader {
  readonly #tokens: readonly string[]
  #at = 0

  constructor(text: string) {
    this.#tokens = tokensOf(text)
  }

  all(): Test[] {
    const tests = [this.#requirement()]
    while (this.#at < this.#tokens.length) {
      this.#expect(',')
      tests.push(this.#requirement())
    }
    return tests
  }

  #requirement(): Test {
    if (this.#is('!')) {
      const key = this.#name()
      return (labels) => !Object.hasOwn(labels, key)
    }
    const key = this.#name()
    const next = this.#tokens[this.#at]
    if (next === undefined || next === ',') return (labels) => Object.hasOwn(labels, key)
    this.#at += 1
    switch (next) {
      case '=':
      case '==':
        return this.#among(key, [this.#value()], true)
      case '!=':
        return this.#among(key, [this.#value()], false)
      case 'in':
        return this.#among(key, this.#list(), true)
      case 'notin':
        return this.#among(key, this.#list(), false)
      case '<':
      case '>':
        return this.#compare(key, next)
      default:
        throw unreadable(next, "found, expected one of: in, notin, =, ==, !=, <, >, ','")
    }
  }

  #among(key: string, wanted: readonly string[], inside: boolean): Test {
    const values = new Set(wanted)
    return (labels) => {
      const found = own(labels, key)
      return (found !== undefined && values.has(found)) === inside
    }
  }

  #compare(key: string, operator: '<' | '>'): Test {
    const text = this.#value()
    if (!/^\d{1,18}$/.test(text)) throw unreadable(text, `must be a whole number after ${operator}`)
    const limit = BigInt(text)
    return (labels) => {
      const found = own(labels, key)
      if (found === undefined || !/^\d{1,18}$/.test(found)) return false
      return operator === '<' ? BigInt(found) < limit : BigInt(found) > limit
    }
  }

  #list(): string[] {
    this.#expect('(')
    const values = [this.#value()]
    while (this.#is(',')) values.push(this.#value())
    this.#expect(')')
    return values
  }

  #name(): string {
    const token = this.#tokens[this.#at] ?? ''
    this.#at += 1
    if (token.length > 317 || !name.test(token)) throw unreadable(token, 'is no label name')
    return token
  }

  /** A value; nothing, where a comma or an end follows, is the empty one. */
  #value(): string {
    const token = this.#tokens[this.#at]
    if (token === undefined || token === ',' || token === ')') return ''
    this.#at += 1
    if (token.length > 63 || !value.test(token)) throw unreadable(token, 'is no label value')
    return token
  }

  #is(token: string): boolean {
    if (this.#tokens[this.#at] !== token) return false
    this.#at += 1
    return true
  }

  #expect(token: string): void {
    if (!this.#is(token)) throw unreadable(this.#tokens[this.#at] ?? '', `found, expected: "${token}"`)
  }
}

function unreadable(token: string, why: string): ApiError {
  return new ApiError('BadRequest', `unable to parse the label selector: "${token.slice(0, 100)}" ${why}`)
}

/**
 * A Kubernetes label selector: `a=b,c!=d,e,!f,g in (h,i),j notin (k),l>1,m<9`. Empty text selects everything.
 * @throws ApiError `BadRequest` naming the part that can't be read
 */
export function parseSelector(text: string | undefined): Selector {
  if (!text?.trim()) return () => true
  if (text.length > maxLength) throw unreadable(text, `is longer than ${maxLength} characters`)
  const tests = new Reader(text).all()
  return (labels = {}) => tests.every((test) => test(labels))
}

import { ApiError } from './errors.ts'

type Labels = Readonly<Record<string, string>>
export type Selector = (labels: Labels | undefined) => boolean

const name = '([A-Za-z0-9][-A-Za-z0-9_./]*)'
const value = '([A-Za-z0-9][-A-Za-z0-9_.]*|)'
const forms: readonly [RegExp, (match: RegExpExecArray) => (labels: Labels) => boolean][] = [
  [
    new RegExp(`^${name}$`),
    ([, key = '']) =>
      (labels) =>
        Object.hasOwn(labels, key),
  ],
  [
    new RegExp(`^!\\s*${name}$`),
    ([, key = '']) =>
      (labels) =>
        !Object.hasOwn(labels, key),
  ],
  [
    new RegExp(`^${name}\\s*==?\\s*${value}$`),
    ([, key = '', v]) =>
      (labels) =>
        labels[key] === v,
  ],
  [
    new RegExp(`^${name}\\s*!=\\s*${value}$`),
    ([, key = '', v]) =>
      (labels) =>
        labels[key] !== v,
  ],
  [new RegExp(`^${name}\\s+in\\s*\\(([^()]*)\\)$`), ([, key = '', list = '']) => oneOf(key, list, true)],
  [new RegExp(`^${name}\\s+notin\\s*\\(([^()]*)\\)$`), ([, key = '', list = '']) => oneOf(key, list, false)],
]

function oneOf(key: string, list: string, wanted: boolean): (labels: Labels) => boolean {
  const values = new Set(list.split(',').map((item) => item.trim()))
  return (labels) => (labels[key] !== undefined && values.has(labels[key])) === wanted
}

/**
 * A Kubernetes label selector: `a=b,c!=d,e,!f,g in (h,i),j notin (k)`. Empty text selects everything.
 * @throws ApiError `BadRequest` naming the part that can't be read
 */
export function parseSelector(text: string | undefined): Selector {
  if (!text) return () => true
  const parts = text.split(/,(?![^(]*\))/).map((part) => part.trim())
  const tests = parts.map((part) => {
    for (const [form, make] of forms) {
      const match = form.exec(part)
      if (match) return make(match)
    }
    throw new ApiError('BadRequest', `unable to parse requirement: "${part}" is no label selector`)
  })
  return (labels = {}) => tests.every((test) => test(labels))
}

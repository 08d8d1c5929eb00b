import { PlasmaError } from '../lib/errors.ts'
import type { CommandModule } from './command.ts'
import { isServerError, UsageError } from './failure.ts'
import { eachHost, getHost, patchSpec, type TaintView } from './hosts.ts'

interface Options {
  readonly output?: string
  readonly overwrite?: boolean
}

/** A taint to set, or to remove where `remove`; then value and effect may be left out. */
export interface TaintChange {
  readonly key: string
  readonly value: string
  readonly effect: string | undefined
  readonly remove: boolean
}

const effects = ['NoSchedule', 'PreferNoSchedule']
const tries = 5

/** Whether a word is a taint rather than a host. */
const isTaint = (word: string) => /[=:]|-$/.test(word)

/** Reads `key=value:Effect`, `key:Effect`, and with a `-` at the end, also `key`, as kubectl taint. @throws UsageError */
export function taintOf(word: string): TaintChange {
  const remove = word.endsWith('-')
  const [left = '', effect, ...more] = (remove ? word.slice(0, -1) : word).split(':')
  const [key = '', ...value] = left.split('=')
  const hint = `write key=value:${effects.join(' or key=value:')}, with - at the end to remove it`
  if (!/^[A-Za-z0-9]([\w./-]*[A-Za-z0-9])?$/.test(key) || more.length > 0 || value.length > 1)
    throw new UsageError(`"${word}" is no taint`, hint)
  if (effect === undefined && !remove) throw new UsageError(`taint "${word}" has no effect`, hint)
  if (effect !== undefined && !effects.includes(effect))
    throw new UsageError(`taint "${word}": ${effect || 'nothing'} is no effect`, hint)
  return { key, value: value[0] ?? '', effect, remove }
}

/** The taints after some changes. @throws PlasmaError where one is there with another value, or isn't there to remove */
export function changedTaints(
  before: readonly TaintView[],
  changes: readonly TaintChange[],
  overwrite: boolean,
): readonly TaintView[] {
  const hint = "see Taints in 'plasmavmc describe host'"
  let taints = [...before]
  for (const { key, value, effect, remove } of changes) {
    const same = (taint: TaintView) => taint.key === key && (effect === undefined || taint.effect === effect)
    const found = taints.find(same)
    const words = `${key}${effect ? `:${effect}` : ''}`
    if (remove && !found) throw new PlasmaError('NoTaint', `there is no taint ${words}`, { hint })
    if (!remove && found && (found.value ?? '') !== value && !overwrite)
      throw new PlasmaError('TaintExists', `taint ${words} is there with the value "${found.value ?? ''}"`, {
        hint: 'give --overwrite to change it',
      })
    taints = taints.filter((taint) => !same(taint))
    if (!remove) taints.push({ key, value, effect: effect ?? '' })
  }
  return taints
}

const changeTaints = (changes: readonly TaintChange[]) =>
  eachHost<Options>(async (name, { client, options }) => {
    for (let i = 1; ; i++) {
      const host = await getHost(client, name)
      const taints = changedTaints(host.spec?.taints ?? [], changes, options.overwrite === true)
      try {
        const changed = await patchSpec(client, name, { taints }, host.metadata.resourceVersion)
        return { host: changed, said: changes.every(({ remove }) => remove) ? 'untainted' : 'tainted' }
      } catch (error) {
        if (i >= tries || !isServerError(error, 'Conflict')) throw error
      }
    }
  })

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('<host...>', 'hosts, then taints: key=value:NoSchedule, key:PreferNoSchedule, key-')
      .option('--overwrite', 'change the value of a taint that is there')
      .option('-o, --output <format>', 'json, yaml or name'),
  examples: ['taint a gpu=yes:NoSchedule', 'taint a gpu=yes:NoSchedule-', 'taint a b slow-'],
  run: async ({ args, options }, io) => {
    const first = args.findIndex(isTaint)
    const changes = (first < 0 ? [] : args.slice(first)).map(taintOf)
    if (changes.length === 0) throw new UsageError('no taint given', 'such as key=value:NoSchedule')
    return changeTaints(changes)({ args: args.slice(0, first), options }, io)
  },
}

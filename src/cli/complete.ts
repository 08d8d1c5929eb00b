import { Command } from 'commander'
import { systemNamespace } from '../resources/host-lease.ts'
import { connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { shells } from './completion.ts'
import type { GlobalOptions, Io } from './io.ts'
import { keyActions } from './key.ts'
import { type ClientKind, clientKinds, kindOf, pathOf } from './kinds.ts'
import { commands, reaching } from './program.ts'

/** Somebody waits with a finger on the key: what the server has not said by then is left out. Milliseconds. */
const deadlineMs = 1_500
const mostNames = 500

const machineCommands = 'start stop restart pause unpause reset console vnc logs'.split(' ')
const hostCommands = 'cordon uncordon drain maintenance taint'.split(' ')
const verbs = 'get list watch create update patch delete deletecollection'.split(' ')
const objectCommands = 'get describe delete wait'.split(' ')

/** Options with the member of GlobalOptions that each sets. */
const globals: Readonly<Record<string, keyof GlobalOptions>> = {
  '--server': 'server',
  '--data-dir': 'dataDir',
  '-n': 'namespace',
  '--namespace': 'namespace',
  '--kubeconfig': 'kubeconfig',
  '--context': 'context',
  '--as': 'as',
  '--as-group': 'asGroup',
}
const files = ['--data-dir', '--kubeconfig', '-f', '--filename', '--config']

/** A command line that is being typed, as far as it goes. */
interface Typed {
  readonly name: string | undefined
  readonly operands: readonly string[]
  readonly options: GlobalOptions
  /** The option whose value is being typed. */
  readonly awaiting: string | undefined
}

type Takes = (option: string) => boolean

/** @param takes whether an option of the command takes a value; the global ones are known */
export function readTyped(words: readonly string[], takes: Takes = () => false): Typed {
  const options: Record<string, string | string[]> = {}
  const set = (member: keyof GlobalOptions, value: string) => {
    options[member] = member === 'asGroup' ? [...(options[member] ?? []), value] : value
  }
  const operands: string[] = []
  let awaiting: string | undefined
  for (const word of words) {
    if (awaiting !== undefined) {
      const member = globals[awaiting]
      if (member) set(member, word)
      awaiting = undefined
      continue
    }
    const [, option = word, value] = /^(--[^=]+)=(.*)$/.exec(word) ?? []
    const member = globals[option]
    if (!word.startsWith('-') || word === '-') operands.push(word)
    else if (value !== undefined && member) set(member, value)
    else if (value === undefined && (member || takes(option))) awaiting = option
  }
  const [name, ...rest] = operands
  return { name, operands: rest, options, awaiting }
}

async function definitionOf(name: string | undefined): Promise<Command | undefined> {
  const entry = commands.find(([one]) => one === name)
  if (!entry) return undefined
  const definition = new Command(name)
  const { command } = await entry[2]()
  command.define(definition)
  return definition
}

const describe = ([name, summary]: (typeof commands)[number]) => `${name}\t${summary}`

function optionsOf(definition: Command | undefined): string[] {
  const own = (definition?.options ?? []).map(
    ({ long, short, description }) => `${long ?? short}\t${description}`,
  )
  return [...own, ...Object.keys(globals).filter((name) => name.startsWith('--')), '--help']
}

/** Formats are named by the description of the option that takes one. */
function formatsOf(definition: Command | undefined, option: string): string[] {
  const { description = '' } =
    definition?.options.find(({ long, short }) => [long, short].includes(option)) ?? {}
  return [...new Set(description.match(/\b(jsonpath=|json|yaml|wide|name|table)/g))]
}

async function valuesFor(option: string, definition: Command | undefined, names: Names): Promise<string[]> {
  if (files.includes(option)) return [':files']
  if (option === '-n' || option === '--namespace') return names(kindOf('namespaces'))
  if (option === '-o' || option === '--output') return formatsOf(definition, option)
  if (option === '--log-level') return ['debug', 'info', 'warn', 'error']
  return []
}

type Names = (kind: ClientKind) => Promise<string[]>

const typeNames = clientKinds.flatMap(({ plural, shortNames }) => [plural, ...shortNames])

/** `vm`, then names; or `vm/`, then a name. */
async function objects(operands: readonly string[], current: string, names: Names): Promise<string[]> {
  const [type] = operands
  const slash = current.indexOf('/')
  if (slash > 0) {
    const before = current.slice(0, slash)
    return (await names(kindOf(before))).map((name) => `${before}/${name}`)
  }
  if (type === undefined) return typeNames
  return type.includes('/') ? [] : names(kindOf(type))
}

/** Ids as `key list` shows them; the names of their objects are in lower case. */
async function keyIds([action = '', ...more]: readonly string[], names: Names): Promise<string[]> {
  const takesId = more.length === 0 && !['create', 'list'].includes(action)
  return takesId ? (await names(kindOf('accesskeys'))).map((name) => name.toUpperCase()) : []
}

function authWords([action, ...more]: readonly string[]): string[] {
  if (action === undefined) return ['can-i', 'whoami']
  if (action !== 'can-i' || more.length > 1) return []
  return more.length === 0 ? verbs : typeNames
}

async function operandsFor({ name = '', operands }: Typed, current: string, names: Names): Promise<string[]> {
  const first = operands.length === 0
  if (name === 'help') return first ? commands.map(describe) : []
  if (machineCommands.includes(name)) return first ? names(kindOf('vm')) : []
  if (hostCommands.includes(name)) return first ? names(kindOf('hosts')) : []
  if (objectCommands.includes(name)) return objects(operands, current, names)
  if (name === 'explain') return first ? typeNames : []
  if (name === 'host') return first ? ['fence'] : names(kindOf('hosts'))
  if (name === 'key') return first ? [...keyActions] : keyIds(operands, names)
  if (name === 'auth') return authWords(operands)
  if (name === 'completion') return first ? [...shells] : []
  return []
}

function namesFrom(options: GlobalOptions, io: Io): Names {
  return async (kind) => {
    const reached = await reaching(options, io)
    const client = connect(options, reached)
    try {
      const namespace = kind.namespaced ? namespaceOf(options, reached) : undefined
      const list = await client.json<{ items?: { metadata: { name: string } }[] }>(
        'GET',
        pathOf(kind, namespace),
        {
          ...{ query: { limit: String(mostNames) }, timeoutMs: deadlineMs },
          accept: 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json',
        },
      )
      const found = (list.items ?? []).map(({ metadata }) => metadata.name)
      return kind.plural === 'namespaces' ? found.filter((name) => name !== systemNamespace) : found
    } finally {
      client.close()
    }
  }
}

/** How a command line may go on whose last word is being typed. Whatever is wrong: nothing. */
export async function candidates(words: readonly string[], io: Io): Promise<string[]> {
  const current = words.at(-1) ?? ''
  const before = words.slice(0, -1)
  const definition = await definitionOf(readTyped(before).name)
  const valued = (definition?.options ?? []).filter(({ required, optional }) => required || optional)
  const typed = readTyped(before, (option) =>
    valued.some(({ long, short }) => [long, short].includes(option)),
  )
  const names = namesFrom(typed.options, io)
  const found =
    typed.awaiting !== undefined
      ? await valuesFor(typed.awaiting, definition, names)
      : current.startsWith('-')
        ? optionsOf(definition)
        : typed.name === undefined
          ? [...commands.map(describe), 'help\tshow help for a command']
          : await operandsFor(typed, current, names)
  return found.filter((one) => one.startsWith(current) || one === ':files')
}

export const command: CommandModule<{ readonly cobra?: boolean }> = {
  define: (c) =>
    void c
      .argument(
        '[words...]',
        'the words before the cursor, after the program’s name; the last one may be empty',
      )
      .option('--cobra', 'answer as kubectl wants it of a plugin'),
  run: async ({ args, options }, io) => {
    const signal = AbortSignal.any([io.signal, AbortSignal.timeout(deadlineMs)])
    const found = await candidates(args, { ...io, signal }).catch((): string[] => [])
    const lines = found.filter((one) => !options.cobra || one !== ':files')
    // ShellCompDirectiveNoFileComp is 4, the default 0.
    const directive = options.cobra ? [`:${found.includes(':files') ? 0 : 4}`] : []
    io.stdout.write([...lines, ...directive].map((line) => `${line}\n`).join(''))
    return 0
  },
}

import { type Client, connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'
import { kindOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { renderObject, renderTable } from './output.ts'
import { review, selfReview } from './review.ts'
import { similarTo } from './similar.ts'

interface Options extends GlobalOptions {
  readonly list?: boolean
  readonly allNamespaces?: boolean
  readonly subresource?: string
  readonly quiet?: boolean
  readonly output?: string
}

interface Rule {
  readonly verbs: readonly string[]
  readonly apiGroups?: readonly string[]
  readonly resources?: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly nonResourceURLs?: readonly string[]
}

/** What `VERB TYPE`, `VERB TYPE/NAME` or `VERB /path` asks for. @throws UsageError */
function questionOf(verb: string, what: string, options: Options, io: Io): object {
  if (what.startsWith('/')) return { nonResourceAttributes: { verb, path: what } }
  const [word = '', name, more] = what.split('/')
  if (more !== undefined) throw new UsageError(`"${what}" is no TYPE/NAME`, 'such as vm/web')
  const {
    group,
    plural: resource,
    namespaced,
  } = word === '*' ? { group: '*', plural: '*', namespaced: true } : kindOf(word)
  const namespace = namespaced && !options.allNamespaces ? namespaceOf(options, io) : undefined
  const { subresource } = options
  const attributes = { verb, group, resource, subresource, name, namespace }
  return { resourceAttributes: Object.fromEntries(Object.entries(attributes).filter(([, one]) => one)) }
}

async function canI(words: readonly string[], options: Options, io: Io): Promise<number> {
  const client = connect(options, io)
  try {
    if (options.list) return await listRules(client, words, options, io)
    const [verb, what, ...more] = words
    if (verb === undefined || what === undefined || more.length > 0)
      throw new UsageError('auth can-i needs a verb and what it is about', 'such as: auth can-i create vm')
    const format = formatOf(options.output, ['json', 'yaml'])
    const spec = questionOf(verb, what, options, io)
    type Answer = { readonly status: { readonly allowed: boolean } }
    const answer = await review<Answer>(client, 'SelfSubjectAccessReview', 'authorization.k8s.io', spec)
    if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(answer, format))
    else if (!options.quiet) io.stdout.write(answer.status.allowed ? 'yes\n' : 'no\n')
    return answer.status.allowed ? 0 : 1
  } finally {
    client.close()
  }
}

async function listRules(
  client: Client,
  words: readonly string[],
  options: Options,
  io: Io,
): Promise<number> {
  if (words.length > 0) throw new UsageError('--list goes without a verb')
  const format = formatOf(options.output, ['json', 'yaml'])
  type Answer = { readonly status: { readonly resourceRules: Rule[]; readonly nonResourceRules: Rule[] } }
  const spec = { namespace: namespaceOf(options, io) }
  const answer = await review<Answer>(client, 'SelfSubjectRulesReview', 'authorization.k8s.io', spec)
  if (format === 'json' || format === 'yaml') {
    io.stdout.write(await renderObject(answer, format))
    return 0
  }
  const { resourceRules, nonResourceRules } = answer.status
  io.stdout.write(rulesText([...resourceRules, ...nonResourceRules], io))
  return 0
}

const list = (words: readonly string[] = []) => `[${words.join(' ')}]`

/** One table as kubectl has it; on a terminal that it is too wide for, one of resources and one of paths. */
function rulesText(rules: readonly Rule[], io: Io): string {
  const rows = rules.flatMap((rule) =>
    resourcesOf(rule).map((name) => [
      ...[name, list(rule.nonResourceURLs), list(rule.resourceNames), list(rule.verbs)],
    ]),
  )
  const columns = ['Resources', 'Non-Resource URLs', 'Resource Names', 'Verbs']
  const whole = renderTable({ columns, rows }, { out: { write: () => true } }).text
  const { isTTY, columns: room = 0 } = io.stdout
  if (!isTTY || whole.split('\n').every((line) => line.length <= room)) return whole
  const style = { out: io.stdout, env: io.env, wrap: true }
  const verbs = ({ verbs }: Rule) => verbs.join(' ')
  const resources = rules.flatMap((rule) =>
    resourcesOf(rule)
      .filter((name) => name !== ' ')
      .flatMap((name) =>
        rule.resourceNames?.length ? rule.resourceNames.map((one) => `${name}/${one}`) : [name],
      )
      .map((name) => [name, verbs(rule)]),
  )
  const paths = rules.flatMap((rule) => (rule.nonResourceURLs ?? []).map((path) => [path, verbs(rule)]))
  return [
    resources.length > 0 ? renderTable({ columns: ['Resources', 'Verbs'], rows: resources }, style).text : '',
    paths.length > 0 ? renderTable({ columns: ['Non-Resource URLs', 'Verbs'], rows: paths }, style).text : '',
  ]
    .filter(Boolean)
    .join('\n')
}

/** `virtualmachines.plasmavmc.io`, one for each group and resource; nothing for a rule about paths. */
function resourcesOf({ apiGroups = [], resources = [] }: Rule): string[] {
  const names = resources.flatMap((one) => apiGroups.map((group) => (group === '' ? one : `${one}.${group}`)))
  return names.length === 0 ? [' '] : names
}

async function whoAmI(words: readonly string[], options: Options, io: Io): Promise<number> {
  if (words.length > 0) throw new UsageError('auth whoami has no operand')
  const format = formatOf(options.output, ['json', 'yaml'])
  const client = connect(options, io)
  try {
    const answer = await selfReview(client)
    if (format === 'json' || format === 'yaml') {
      io.stdout.write(await renderObject(answer, format))
      return 0
    }
    const { username, groups = [], extra = {} } = answer.status.userInfo
    const rows = [
      ['Username', username],
      ['Groups', `[${groups.join(' ')}]`],
      ...Object.entries(extra).map(([name, values]) => [`Extra: ${name}`, `[${values.join(' ')}]`]),
    ]
    const table = { columns: ['Attribute', 'Value'], rows }
    io.stdout.write(renderTable(table, { out: io.stdout, env: io.env, wrap: true }).text)
    return 0
  } finally {
    client.close()
  }
}

const actions: Readonly<Record<string, typeof canI>> = { 'can-i': canI, whoami: whoAmI }

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('<action>', 'can-i or whoami')
      .argument('[words...]', 'for can-i: a verb, and TYPE, TYPE/NAME or a path')
      .option('--list', 'all that you may do in the namespace')
      .option('-A, --all-namespaces', 'ask about all namespaces')
      .option('--subresource <name>', 'such as console')
      .option('-q, --quiet', 'say nothing; the exit code is 0 for yes, 1 for no')
      .option('-o, --output <format>', 'json or yaml'),
  examples: [
    'auth whoami',
    'auth can-i create vm',
    'auth can-i get vm/web --subresource console -n shop',
    'auth can-i --list',
  ],
  run: async ({ args: [action = '', ...words], options }, io) => {
    const run = Object.hasOwn(actions, action) ? actions[action] : undefined
    if (run) return run(words, options, io)
    const similar = similarTo(action, Object.keys(actions))
    throw new UsageError(
      `auth ${action}: no such action`,
      similar ? `did you mean ${similar}?` : `there are: ${Object.keys(actions).join(', ')}`,
    )
  },
}

import { Command, CommanderError } from 'commander'
import { type CommandModule, completeCommand } from './command.ts'
import { errorObject, exitCodeOf, renderError, UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'
import { similarTo } from './similar.ts'

type Load = () => Promise<{ readonly command: CommandModule<never> }>
type Entry = readonly [name: string, summary: string, load: Load]

const verb =
  (name: string): Load =>
  async () => ({ command: (await import('./verb.ts')).verbCommand(name) })

/** Every command, in the order help lists them; each file is loaded only when its command is typed. */
const groups: Readonly<Record<string, readonly Entry[]>> = {
  'Server:': [
    ['up', 'start a one-host server here with a first machine', () => import('./up.ts')],
    ['serve', 'run the server', () => import('./serve.ts')],
    ['guard', 'run the guard of a host in a cluster; serve starts it by itself', () => import('./guard.ts')],
  ],
  'Objects:': [
    ['apply', 'make what files declare so', () => import('./apply.ts')],
    ['get', 'list objects', () => import('./get.ts')],
    ['describe', 'show one object with its conditions and events', () => import('./describe.ts')],
    ['delete', 'delete objects and wait until they are gone', () => import('./delete.ts')],
    ['wait', 'wait for a condition, a value or a deletion', () => import('./wait.ts')],
    ['events', 'list what happened', () => import('./events.ts')],
    ['explain', 'describe the fields of a resource', () => import('./explain.ts')],
  ],
  'Machines:': [
    ['start', 'start a machine', verb('start')],
    ['stop', 'shut a machine down', verb('stop')],
    ['restart', 'shut a machine down and start it again', verb('restart')],
    ['pause', 'freeze a machine', verb('pause')],
    ['unpause', 'let a paused machine go on', verb('unpause')],
    ['reset', 'press a machine’s reset button', verb('reset')],
    ['console', 'attach to a machine’s serial console', () => import('./console.ts')],
    ['vnc', 'lead a local port to a machine’s display', () => import('./vnc.ts')],
    ['logs', 'print the log of a machine’s QEMU', () => import('./logs.ts')],
    ['orphans', 'list running QEMUs that no resource declares', () => import('./orphans.ts')],
    ['adopt', 'declare an orphan again from its launch record', () => import('./adopt.ts')],
  ],
  'Hosts:': [
    ['cordon', 'place no more machines on hosts', () => import('./cordon.ts')],
    ['uncordon', 'place machines on hosts again', () => import('./uncordon.ts')],
    ['drain', 'move the machines of a host to others', () => import('./drain.ts')],
    ['maintenance', 'suspend the watch over a host for a while', () => import('./maintenance.ts')],
    ['taint', 'keep machines off hosts that they do not tolerate', () => import('./taint.ts')],
    ['host', 'fence: say that a lost host is off', () => import('./host.ts')],
  ],
  'Access and upkeep:': [
    ['kubeconfig', 'print a kubeconfig for kubectl', () => import('./kubeconfig.ts')],
    ['token', 'print a token for kubectl (ExecCredential)', () => import('./token.ts')],
    ['auth', 'can-i, whoami: who you are and what you may do', () => import('./auth.ts')],
    ['key', 'make, list, disable, rotate and delete access keys', () => import('./key.ts')],
    ['completion', 'print completion for a shell', () => import('./completion.ts')],
    ['version', 'print versions', () => import('./version.ts')],
    ['drill', 'play failures on real QEMUs in a scratch folder', () => import('./drill.ts')],
    [
      'simulate',
      'play failures of a cluster in virtual time; what if a host is lost?',
      () => import('./simulate.ts'),
    ],
  ],
}

export const commands: readonly Entry[] = Object.values(groups).flat()

const valued = new Set([
  ...['--server', '--data-dir', '-n', '--namespace', '--as', '--as-group', '--kubeconfig', '--context'],
])
const collect = (value: string, before: readonly string[] = []) => [...before, value]

/** What shells ask for while somebody types. */
const hidden: Entry = [completeCommand, 'list how a command line may go on', () => import('./complete.ts')]

/** The command's name: the first word that is neither a global option nor its value. */
export function commandName(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (valued.has(word)) i++
    else if (!word.startsWith('-')) return word
  }
  return undefined
}

function skeleton(io: Io, complain: (text: string) => void): Command {
  return new Command(io.plugin ? 'kubectl plasmavmc' : 'plasmavmc')
    .description('Keeps QEMU virtual machines as declared.')
    .option('--server <host:port>', 'address of the API (PLASMAVMC_SERVER; default 127.0.0.1:7443)')
    .option('--data-dir <dir>', 'where the CA and the credentials lie (PLASMAVMC_DATA_DIR)')
    .option('-n, --namespace <name>', 'namespace (PLASMAVMC_NAMESPACE; default "default")')
    .option('--as <user>', 'do it as that user, who you must be let impersonate')
    .option('--as-group <name>', 'and in that group; may be given more than once', collect)
    .option('--kubeconfig <file>', 'reach the server as kubectl does, by this kubeconfig')
    .option('--context <name>', 'context of the kubeconfig; its current one otherwise')
    .helpCommand('help [command]', 'show help for a command')
    .helpOption('-h, --help', 'show help')
    .showHelpAfterError("see 'plasmavmc help'")
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: complain,
      getOutHelpWidth: () => io.stdout.columns ?? 80,
      getErrHelpWidth: () => io.stderr.columns ?? 80,
    })
}

function addCommand(program: Command, group: string, [name, summary]: Entry): Command {
  const command = program.command(name).description(summary).helpGroup(group)
  return command.copyInheritedSettings(program).showHelpAfterError(`see 'plasmavmc help ${name}'`)
}

async function build(
  argv: readonly string[],
  io: Io,
  out: { readonly done: (code: number) => void; readonly complain: (text: string) => void },
): Promise<Command> {
  const program = skeleton(io, out.complain)
  const first = commandName(argv)
  const wanted = first === 'help' ? commandName(argv.slice(argv.indexOf('help') + 1)) : first
  if (first === 'help' && wanted !== undefined) requireCommand(wanted)
  const listed = first === completeCommand ? { '': [hidden] } : groups
  for (const [group, entries] of Object.entries(listed)) {
    for (const entry of entries) {
      const command = addCommand(program, group, entry)
      if (entry[0] !== wanted) continue
      const { command: module } = await entry[2]()
      module.define(command)
      if (module.examples) command.addHelpText('after', examplesText(module.examples))
      command.action(async () => {
        const options = command.optsWithGlobals() as GlobalOptions
        const reached = await reaching(options, io)
        out.done(await module.run({ args: command.args, options: options as never }, reached))
      })
    }
  }
  return program
}

/** By a kubeconfig, where one is named, or where kubectl called us and no other server is. */
export async function reaching(options: GlobalOptions, io: Io): Promise<Io> {
  const named = options.kubeconfig ?? options.context
  const other = options.server ?? options.dataDir
  if (named === undefined && !(io.plugin && other === undefined)) return io
  const { withKubeconfig } = await import('./kube-context.ts')
  return withKubeconfig(options, io)
}

function requireCommand(name: string): void {
  const names = commands.map(([one]) => one)
  if (names.includes(name) || name === 'help') return
  const similar = similarTo(name, names)
  throw new UsageError(
    `unknown command '${name}'`,
    similar ? `did you mean ${similar}?` : "see 'plasmavmc help'",
  )
}

function examplesText(examples: readonly string[]): string {
  return `\nExamples:\n${examples.map((line) => `  ${line.startsWith('(') ? '' : 'plasmavmc '}${line}\n`).join('')}`
}

const jsonWanted = (argv: readonly string[]) =>
  argv.some(
    (word, i) =>
      /^(-o=?|--output=)json$/.test(word) || (/^(-o|--output)$/.test(word) && argv[i + 1] === 'json'),
  )

/** Whether an error only says that Ctrl-C was pressed. */
function isStop(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false
  const { name, cause } = error as { name?: unknown; cause?: unknown }
  return error === signal.reason || cause === signal.reason || name === 'AbortError'
}

/**
 * Runs one command line (without node and script).
 * @returns the exit code: 0 done, 1 failed, 2 usage; never rejects. Errors go to stderr, as a Status with `-o json`.
 */
export async function runProgram(argv: readonly string[], io: Io): Promise<number> {
  let code = 0
  let complaint = ''
  const out = {
    done: (result: number) => {
      code = result
    },
    complain: (text: string) => {
      complaint += text
    },
  }
  const json = jsonWanted(argv)
  const asJson = (error: unknown) => `${JSON.stringify(errorObject(error), null, 2)}\n`
  try {
    const words = argv[0] === '--version' ? ['version', '--client'] : [...argv]
    const program = await build(words, io, out)
    if (words.length === 0) throw new UsageError('no command given', "see 'plasmavmc help'")
    await program.parseAsync(words, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0
      const [what = '', ...advice] = complaint
        .replace(/^error: /, '')
        .trim()
        .split('\n')
      io.stderr.write(json ? asJson(new UsageError(what, advice.join('; ') || undefined)) : complaint)
      return 2
    }
    if (isStop(error, io.signal)) return 1
    io.stderr.write(json ? asJson(error) : renderError(error))
    return exitCodeOf(error)
  }
}

import { Command, CommanderError } from 'commander'
import type { CommandModule } from './command.ts'
import { errorObject, exitCodeOf, renderError, UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'

type Load = () => Promise<{ readonly command: CommandModule<never> }>
type Entry = readonly [name: string, summary: string, load: Load]

const verb =
  (name: string): Load =>
  async () => ({ command: (await import('./verb.ts')).verbCommand(name) })

/** Every command, in the order help lists them; each file is loaded only when its command is typed. */
export const commands: readonly Entry[] = [
  ['up', 'start a one-host server here with a first machine', () => import('./up.ts')],
  ['serve', 'run the server', () => import('./serve.ts')],
  ['apply', 'make what files declare so', () => import('./apply.ts')],
  ['get', 'list objects', () => import('./get.ts')],
  ['describe', 'show one object with its conditions and events', () => import('./describe.ts')],
  ['delete', 'delete objects and wait until they are gone', () => import('./delete.ts')],
  ['wait', 'wait for a condition, a value or a deletion', () => import('./wait.ts')],
  ['start', 'start a machine', verb('start')],
  ['stop', 'shut a machine down', verb('stop')],
  ['restart', 'shut a machine down and start it again', verb('restart')],
  ['pause', 'freeze a machine', verb('pause')],
  ['unpause', 'let a paused machine go on', verb('unpause')],
  ['reset', 'press a machine’s reset button', verb('reset')],
  ['console', 'attach to a machine’s serial console', () => import('./console.ts')],
  ['logs', 'print the log of a machine’s QEMU', () => import('./logs.ts')],
  ['events', 'list what happened', () => import('./events.ts')],
  ['explain', 'describe the fields of a resource', () => import('./explain.ts')],
  ['orphans', 'list running QEMUs that no resource declares', () => import('./orphans.ts')],
  ['adopt', 'declare an orphan again from its launch record', () => import('./adopt.ts')],
  ['token', 'print a token for kubectl (ExecCredential)', () => import('./token.ts')],
  ['kubeconfig', 'print a kubeconfig for kubectl', () => import('./kubeconfig.ts')],
  ['version', 'print versions', () => import('./version.ts')],
  ['drill', 'rehearse a failure', () => import('./drill.ts')],
]

const valued = new Set(['--server', '--data-dir', '-n', '--namespace'])

/** The command's name: the first word that is neither a global option nor its value. */
export function commandName(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (valued.has(word)) i++
    else if (!word.startsWith('-')) return word
  }
  return undefined
}

function skeleton(io: Io): Command {
  return new Command('plasmavmc')
    .description('Keeps QEMU virtual machines as declared.')
    .option('--server <host:port>', 'address of the API (PLASMAVMC_SERVER; default 127.0.0.1:7443)')
    .option('--data-dir <dir>', 'where the CA and the credentials lie (PLASMAVMC_DATA_DIR)')
    .option('-n, --namespace <name>', 'namespace (PLASMAVMC_NAMESPACE; default "default")')
    .helpCommand(true)
    .showHelpAfterError("(see 'plasmavmc help' and 'plasmavmc help COMMAND')")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      getOutHelpWidth: () => io.stdout.columns ?? 100,
      getErrHelpWidth: () => io.stderr.columns ?? 100,
    })
}

async function build(argv: readonly string[], io: Io, done: (code: number) => void): Promise<Command> {
  const program = skeleton(io)
  const first = commandName(argv)
  const wanted = first === 'help' ? commandName(argv.slice(argv.indexOf('help') + 1)) : first
  for (const [name, summary, load] of commands) {
    const command = program.command(name).description(summary).copyInheritedSettings(program)
    if (name !== wanted) continue
    const { command: module } = await load()
    module.define(command)
    command.action(async () => {
      const options = command.optsWithGlobals() as GlobalOptions as never
      done(await module.run({ args: command.args, options }, io))
    })
  }
  return program
}

const jsonWanted = (argv: readonly string[]) =>
  argv.some(
    (word, i) =>
      /^(-o=?|--output=)json$/.test(word) || (/^(-o|--output)$/.test(word) && argv[i + 1] === 'json'),
  )

/**
 * Runs one command line (without node and script).
 * @returns the exit code: 0 done, 1 failed, 2 usage; never rejects. Errors go to stderr, as a Status with `-o json`.
 */
export async function runProgram(argv: readonly string[], io: Io): Promise<number> {
  let code = 0
  try {
    const program = await build(argv, io, (result) => {
      code = result
    })
    if (argv.length === 0) throw new UsageError('no command given', "see 'plasmavmc help'")
    await program.parseAsync([...argv], { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (io.signal.aborted && error === io.signal.reason) return 1
    io.stderr.write(
      jsonWanted(argv) ? `${JSON.stringify(errorObject(error), null, 2)}\n` : renderError(error),
    )
    return exitCodeOf(error)
  }
}

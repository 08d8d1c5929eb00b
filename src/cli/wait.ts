import { awaitObject } from './await.ts'
import { connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { expectation } from './expectation.ts'
import { UsageError } from './failure.ts'
import type { Invocation, Io } from './io.ts'
import { nameOf } from './kinds.ts'
import { durationMs, formatOf } from './options.ts'
import { renderObject, withoutAccount } from './output.ts'
import { progressLine } from './progress.ts'
import { progressOf, targetsOf } from './targets.ts'

const weekMs = 7 * 86_400_000

interface Options {
  readonly for?: string
  readonly timeout?: string
  readonly output?: string
}

async function run({ args, options }: Invocation<Options>, io: Io): Promise<number> {
  const targets = targetsOf(args).flatMap(({ kind, names }) => names.map((name) => ({ kind, name })))
  if (targets.length === 0) throw new UsageError('no object named', 'wait TYPE NAME --for=…')
  if (options.for === undefined) throw new UsageError('--for is missing', 'such as --for=condition=Ready')
  const { what, done } = expectation(options.for)
  const asked = durationMs(options.timeout ?? '30s')
  // As kubectl has it.
  const timeoutMs = asked < 0 ? weekMs : asked
  const format = formatOf(options.output, ['json', 'yaml', 'name'])
  const client = connect(options, io)
  for (const { kind, name } of targets) {
    const progress = progressLine(io)
    const describe = progressOf
    const wanted = {
      kind,
      namespace: namespaceOf(options, io),
      name,
      timeoutMs,
      what,
      done,
      describe,
      patient: true,
    }
    const state = await awaitObject(
      client,
      { ...wanted, progress: (o) => progress.show(`${name}: ${progressOf(o)}`) },
      io,
    ).finally(progress.end)
    if (format === 'json' || format === 'yaml')
      io.stdout.write(await renderObject(withoutAccount(state ?? null), format))
    else if (format === 'name') io.stdout.write(`${nameOf(kind, name)}\n`)
    else io.stdout.write(`${nameOf(kind, name)} condition met\n`)
  }
  client.close()
  return 0
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('[type]', 'or TYPE/NAME …')
      .argument('[name...]')
      .option('--for <what>', 'condition=Ready, condition=X=False, delete, jsonpath={.status.phase}=Running')
      .option('--timeout <duration>', 'longest wait for each, such as 5m; 0: look once; default 30s')
      .option('-o, --output <format>', 'json, yaml or name'),
  examples: [
    'wait vm web --for=condition=Ready --timeout=2m',
    "wait vm web --for=jsonpath='{.status.phase}'=Stopped",
    'wait vm web --for=delete',
  ],
  run,
}

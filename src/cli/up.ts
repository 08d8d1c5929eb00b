import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { WebSocket } from 'ws'
import type { Config } from '../config.ts'
import { sleep } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { applyOne } from './apply.ts'
import { awaitObject } from './await.ts'
import { addressOf, type Client, openClient } from './client.ts'
import type { CommandModule } from './command.ts'
import { type Connection, quote } from './connection.ts'
import { bytesOf, openConsole } from './console.ts'
import { provideHelloImages } from './images.ts'
import type { Invocation, Io } from './io.ts'
import { kindOf, nameOf } from './kinds.ts'
import { readManifests } from './manifests.ts'
import { progressLine } from './progress.ts'
import { defineServeOptions, type ServeOptions, serveConfig } from './serve.ts'
import { type ObjectView, progressOf } from './targets.ts'

/** What the guest says when its user land is there. */
const greeting = 'PlasmaVMC guest is up'
const serverTimeoutMs = 60_000
const machineTimeoutMs = 180_000
const consoleTimeoutMs = 60_000

function connectionFor(config: Config, options: ServeOptions, env: Io['env']): Connection {
  const flags = [
    options.dataDir === undefined ? '' : `--data-dir ${quote(config.dataDir)}`,
    options.listen === undefined ? '' : `--server ${quote(options.listen)}`,
    // What the environment says holds for the next command in this shell, too; the listen address has no such twin.
    options.listen === undefined && env['PLASMAVMC_LISTEN'] ? `--server ${env['PLASMAVMC_LISTEN']}` : '',
  ]
  const host = ['0.0.0.0', '::'].includes(config.listen.host) ? '127.0.0.1' : config.listen.host
  return { host, port: config.listen.port, dataDir: config.dataDir, flags: flags.filter(Boolean).join(' ') }
}

/** A client of a server that answers already, or undefined where there is none. @throws PlasmaError for a stranger */
async function running(connection: Connection, io: Io): Promise<Client | undefined> {
  let client: Client
  try {
    client = openClient(connection, io.clock, io.env)
  } catch {
    return undefined // No CA or no credentials yet: no server ever ran on this data.
  }
  try {
    await client.json('GET', '/version', { timeoutMs: 5000, signal: io.signal })
    return client
  } catch (error) {
    client.close()
    if (error instanceof PlasmaError && error.code === 'NoServer') return undefined
    throw error
  }
}

interface Serving {
  readonly client: Client
  /** Ends when the server ended; undefined where another process serves. */
  readonly ended: Promise<void> | undefined
}

async function start(config: Config, connection: Connection, io: Io): Promise<Serving> {
  const { serve } = await import('../wire.ts')
  // What the server says on stdout, `up` says in its own words.
  const ended = serve(config, { signal: io.signal, stdout: { write: () => true }, stderr: io.stderr })
  const early = ended.then(() => {
    throw new PlasmaError('ServerEnded', 'the server ended before it answered')
  })
  early.catch(() => {}) // Raced below; once the server is up its end is awaited through `ended`.
  const answering = (signal: AbortSignal) => Promise.race([untilAnswering(connection, io, signal), early])
  const client = await withDeadline(serverTimeoutMs, 'starting the server', answering, { signal: io.signal })
  return { client, ended }
}

async function untilAnswering(connection: Connection, io: Io, signal: AbortSignal): Promise<Client> {
  for (;;) {
    const client = await running(connection, io)
    if (client) return client
    // Nothing tells from outside when a port begins to listen.
    await sleep(io.clock, 50, signal)
  }
}

/** @returns whether the machine ran before */
async function applyHello(client: Client, io: Io): Promise<boolean> {
  const file = join(io.root, 'deploy', 'examples', 'hello.yaml')
  const settings = { dryRun: 'none', fieldValidation: 'Strict', namespace: 'default' } as const
  let ran = false
  for (const { manifest } of await readManifests([file], false, io)) {
    const { kind, verb, object } = await applyOne(client, manifest, settings)
    io.stdout.write(`${nameOf(kind, manifest.metadata.name)} ${verb}\n`)
    ran ||= verb === 'unchanged' && (object as ObjectView).status?.phase === 'Running'
  }
  return ran
}

async function untilRunning(client: Client, io: Io): Promise<ObjectView | undefined> {
  const progress = progressLine(io)
  const wanted = { kind: kindOf('vm'), namespace: 'default', name: 'hello' }
  const machine = await awaitObject(
    client,
    {
      ...wanted,
      timeoutMs: machineTimeoutMs,
      what: 'the machine to run',
      done: (o) => o?.status?.phase === 'Running',
      progress: (o) => progress.show(`hello: ${progressOf(o)}`),
      describe: progressOf,
    },
    io,
  ).finally(progress.end)
  io.stdout.write('hello: Running\n')
  return machine
}

const greetingIn = (text: string) =>
  text
    .split(/\r?\n/)
    .findLast((line) => line.includes(greeting))
    ?.trim()

/** What a machine that has run for long said when it came up: the host keeps its console's log. */
async function greetingInLog(runDir: string, uid: string): Promise<string | undefined> {
  const { vmPaths } = await import('../host/paths.ts')
  const text = await readFile(vmPaths(runDir, uid).consoleLog, 'latin1').catch(() => '')
  return greetingIn(text.slice(-65_536))
}

/** The first console line with the greeting. The end of what was read is kept, 64 KiB at most. */
function greetingOn(socket: WebSocket, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = ''
    socket.on('message', (data) => {
      seen = (seen + bytesOf(data).toString('utf8')).slice(-65_536)
      const line = seen.split(/\r?\n/).find((l) => l.includes(greeting))
      if (line !== undefined && seen.includes('\n', seen.lastIndexOf(greeting))) resolve(line.trim())
    })
    socket.once('close', () => reject(new PlasmaError('ConsoleClosed', 'the console closed')))
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    socket.resume()
  })
}

async function showConsole(client: Client, io: Io): Promise<void> {
  const progress = progressLine(io)
  const socket = await openConsole(client, 'default', 'hello')
  try {
    progress.show('hello boots: waiting for its first words on the console')
    const work = (signal: AbortSignal) => greetingOn(socket, signal)
    const waiting = withDeadline(consoleTimeoutMs, 'the guest’s greeting', work, { signal: io.signal })
    const line = await waiting.finally(progress.end)
    io.stdout.write(`hello's console: ${line}\n`)
  } catch (error) {
    if (io.signal.aborted) throw error
    io.stderr.write(`hello's console stayed silent (${messageOf(error)}); see 'plasmavmc console hello'\n`)
  } finally {
    socket.close()
  }
}

function nextSteps(connection: Connection, io: Io): string {
  const program = quote(io.program)
  const command = connection.flags ? `${program} ${connection.flags}` : program
  return [
    '\nNow try, in another terminal:\n',
    `  ${command} get vms\n`,
    `  ${command} describe vm hello\n`,
    `  ${command} console hello        # Enter for a prompt; Ctrl-] leaves\n`,
    `  ${command} events -w            # and kill its QEMU: it comes back\n`,
    `  ${command} kubeconfig > plasmavmc.kubeconfig\n`,
    '  kubectl --kubeconfig plasmavmc.kubeconfig get vms\n',
    `  ${command} delete vm hello\n\n`,
  ].join('')
}

async function run({ options }: Invocation<ServeOptions>, io: Io): Promise<number> {
  const quiet =
    options.logLevel === undefined && !io.env['PLASMAVMC_LOG_LEVEL'] && options.config === undefined
  const config = await serveConfig(quiet ? { ...options, logLevel: 'warn' } : options, io)
  const connection = connectionFor(config, options, io.env)
  const address = addressOf(connection)
  await provideHelloImages(io.root, config.dataDir)
  const present = await running(connection, io)
  const { client, ended } = present
    ? { client: present, ended: undefined }
    : await start(config, connection, io)
  const state = present ? 'already serves' : 'serves'
  io.stdout.write(`PlasmaVMC ${state} on https://${address} (data in ${config.dataDir})\n`)
  const ran = await applyHello(client, io)
  const machine = await untilRunning(client, io)
  const said = ran ? await greetingInLog(config.runDir, machine?.metadata.uid ?? '') : undefined
  if (said !== undefined) io.stdout.write(`hello's console: ${said}\n`)
  else await showConsole(client, io)
  io.stdout.write(nextSteps(connection, io))
  client.close()
  if (ended === undefined) return 0
  io.stdout.write('Serving. Ctrl-C ends the server; machines run on.\n')
  await ended
  io.stdout.write('\nThe server ended; its machines run on. Start it again and it takes them over.\n')
  return 0
}

export const command: CommandModule<ServeOptions> = { define: defineServeOptions, run }

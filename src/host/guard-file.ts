import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../lib/clock.ts'
import { errnoOf, messageOf } from '../lib/errors.ts'
import { hostClock } from './guard-clock.ts'
import type { ProcessIdentity, Tenure } from './ports.ts'
import { hasEnded, Procfs } from './procfs.ts'

/** What the host's lease says, as far as it binds the guard. */
const promise = z.object({
  /** Hosts whose word counts, this one among them. */
  members: z.array(z.string()),
  deadlineMs: z.number(),
  /** In maintenance: nothing is stopped, and nobody takes the lease. */
  suspended: z.boolean(),
})
export type HostPromise = z.output<typeof promise>

const identity = { pid: z.int(), startTime: z.number(), bootId: z.string() }

const guardShape = z.object({
  version: z.literal(1),
  ...identity,
  host: z.string(),
  /** Of which program, told what; a guard of another one is replaced. */
  program: z.string(),
  epoch: z.int(),
  held: z.boolean(),
  /** When the last renewal that succeeded was sent, ms of the host's clock. */
  sentAt: z.number().optional(),
  /** After which the lease is not held any more, ms since then. */
  deadlineMs: z.number(),
  /** When machines are to be stopped unless a later record says otherwise, ms of the host's clock; absent: not at all. */
  stopAt: z.number().optional(),
  /** Machines are being stopped, or have been. */
  fencing: z.boolean(),
  /** Everything that the lease may say now. */
  promises: z.array(promise),
  /** Where the guards of other hosts answer, by host, as far as the store has told. */
  peers: z.record(z.string(), z.string()).optional(),
  /** When this was written, ms of the host's clock. */
  aliveAt: z.number(),
  why: z.string(),
  /** How it stands, in one word; absent from a guard of another version, as the two that follow. */
  standing: z.string().optional(),
  /** What it waits for where it does not hold the lease. */
  waits: z.string().optional(),
  /** What the lease says of the agent. */
  agent: z.enum(['alive', 'silent']).optional(),
})
/** `<run-dir>/guard.json`: what the guard tells the agent, and the guard after it. */
export type GuardRecord = z.output<typeof guardShape>

const agentShape = z.object({ version: z.literal(1), ...identity, aliveAt: z.number() })

export const guardFile = (runDir: string): string => join(runDir, 'guard.json')
const agentFile = (runDir: string): string => join(runDir, 'agent.json')

/**
 * Readers see the old text or the new one. Nothing is synced: after a crash of the host neither counts.
 * @throws the system error
 */
function replace(file: string, value: unknown): void {
  const part = `${file}.${process.pid}.part`
  writeFileSync(part, `${JSON.stringify(value)}\n`, { mode: 0o600 })
  renameSync(part, file)
}

/** @throws the system error */
export function writeGuardRecord(runDir: string, record: GuardRecord): void {
  replace(guardFile(runDir), record)
}

function read<T>(file: string, shape: z.ZodType<T>): T | string {
  try {
    return shape.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? 'there is none' : messageOf(error)
  }
}

/** What the last guard of this boot has told; undefined where there is nothing that can be relied on. */
export function readGuardRecord(runDir: string, bootId: string): GuardRecord | undefined {
  const record = read(guardFile(runDir), guardShape)
  return typeof record === 'string' || record.bootId !== bootId ? undefined : record
}

/** This process, as others on this host can tell it. */
export function ownIdentity(proc = new Procfs()): ProcessIdentity {
  const stat = proc.stat(process.pid)
  const startTime = stat.state === 'present' ? stat.value.startTime : 0
  return { pid: process.pid, startTime, bootId: proc.bootId() }
}

/** Whether exactly this process lives; one that can't be seen counts as alive. */
export function processLives(
  { pid, startTime }: Pick<ProcessIdentity, 'pid' | 'startTime'>,
  proc = new Procfs(),
) {
  const stat = proc.stat(pid)
  if (stat.state === 'unreadable') return true
  return stat.state === 'present' && stat.value.startTime === startTime && !hasEnded(stat.value)
}

export interface TenureOptions {
  readonly clock?: Clock
  readonly proc?: Procfs
}

/** Whether the guard of this run directory holds the host's lease right now. Never throws. */
export function readTenure(runDir: string, options: TenureOptions = {}): Tenure {
  const { clock = hostClock, proc = new Procfs() } = options
  const record = read(guardFile(runDir), guardShape)
  if (typeof record === 'string') return { state: 'lost', why: `${guardFile(runDir)}: ${record}` }
  const lives = () => processLives(record, proc)
  return tenureOf(record, { bootId: proc.bootId(), now: clock.elapsed(), lives })
}

/** What a guard's record allows. `now` is ms of the host's clock; `lives` tells whether that guard does. */
export function tenureOf(
  { pid, bootId, epoch, held, sentAt, deadlineMs, fencing, why }: GuardRecord,
  host: { readonly bootId: string; readonly now: number; readonly lives: () => boolean },
): Tenure {
  const lost = (because: string): Tenure => ({ state: 'lost', why: because })
  if (bootId !== host.bootId) return lost('no guard has run since this host was booted')
  if (!host.lives()) return lost(`the guard, process ${pid}, has ended`)
  if (!held || fencing || sentAt === undefined) return lost(why)
  const age = host.now - sentAt
  if (age < deadlineMs) return { state: 'held', epoch, leftMs: deadlineMs - age }
  return lost(`the lease of this host was not renewed for ${Math.round(age / 100) / 10} s`)
}

/** The agent's sign of life. @throws the system error */
export function writeAgentSign(runDir: string, self: ProcessIdentity, clock: Clock = hostClock): void {
  replace(agentFile(runDir), { version: 1, ...self, aliveAt: clock.elapsed() })
}

/** Whether the agent of this run directory gave a sign of life within the last `withinMs`. */
export function agentLives(
  runDir: string,
  { bootId, withinMs, now }: { readonly bootId: string; readonly withinMs: number; readonly now: number },
): boolean {
  const sign = read(agentFile(runDir), agentShape)
  return typeof sign !== 'string' && sign.bootId === bootId && now - sign.aliveAt < withinMs
}

import { readFileSync } from 'node:fs'
import { PlasmaError } from '../lib/errors.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import type { Lab } from './lab.ts'

export interface Outcome {
  /** Fault to status, ms; undefined where nothing runs that could notice. */
  readonly detectedMs?: number
  /** Fault to the declared state again, ms; undefined where a person must act. */
  readonly recoveredMs?: number
  readonly recovery: string
  readonly manual: string
}

export interface Scenario {
  readonly name: string
  readonly play: (lab: Lab) => Promise<Outcome>
}

type Process = NonNullable<NonNullable<VirtualMachine['status']>['process']>

function processOf(vm: VirtualMachine): Process {
  const process = vm.status?.process
  if (!process)
    throw new PlasmaError('DrillFailed', `the machine has no process in the phase ${vm.status?.phase}`)
  return process
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new PlasmaError('DrillFailed', what)
}

const running = (vm: VirtualMachine) => vm.status?.phase === 'Running'

/** Running under another pid than before. */
const replaced = (before: Process) => (vm: VirtualMachine) =>
  running(vm) && vm.status?.process !== undefined && vm.status.process.launchId !== before.launchId

const recordedEnd = (before: Process) => (vm: VirtualMachine) =>
  vm.status?.lastExit?.launchId === before.launchId

/** Start time of a pid as the kernel has it: the same one means the same process. */
function startTimeOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
}

/** A machine that has run undisturbed for long enough that its guest is up; @returns it and its process. */
async function booted(lab: Lab): Promise<{ uid: string; before: Process }> {
  const { vm } = await lab.waitFor('the machine runs', running)
  const uid = vm.metadata.uid ?? ''
  await lab.guestUp(uid, 1)
  return { uid, before: processOf(await lab.get()) }
}

async function untouched(lab: Lab, before: Process): Promise<void> {
  const after = processOf((await lab.waitFor('the machine is adopted', running)).vm)
  expect(after.pid === before.pid && after.launchId === before.launchId, 'the machine was started anew')
  expect(startTimeOf(before.pid) === before.startTime, 'the process is another one')
}

function serverEnds(signal: 'SIGKILL' | 'SIGTERM'): Scenario['play'] {
  return async (lab) => {
    const { before } = await booted(lab)
    await lab.stopServer(signal)
    expect(startTimeOf(before.pid) === before.startTime, 'the guest did not survive the server')
    const began = lab.now()
    await lab.startServer()
    await untouched(lab, before)
    const recoveredMs = lab.now() - began
    return {
      recoveredMs,
      recovery:
        'the guest runs on; the next server adopts it, same pid and start time (counted from the start of that server)',
      manual: 'none under a supervisor that restarts the server (systemd); else start it',
    }
  }
}

async function qemuKilled(lab: Lab): Promise<Outcome> {
  const { before } = await booted(lab)
  const gone = lab.waitFor('the status shows it', recordedEnd(before))
  const back = lab.waitFor('another QEMU runs', replaced(before))
  await lab.get()
  const began = lab.now()
  process.kill(before.pid, 'SIGKILL')
  const [detected, recovered] = await Promise.all([gone, back])
  return {
    detectedMs: detected.at - began,
    recoveredMs: recovered.at - began,
    recovery: 'started again at once; with back-off when it keeps dying',
    manual: 'none',
  }
}

async function qemuHung(lab: Lab): Promise<Outcome> {
  const { before } = await booted(lab)
  const began = lab.now()
  process.kill(before.pid, 'SIGSTOP')
  const detected = await lab.waitFor(
    'the status says Unresponsive',
    (vm) => vm.status?.phase === 'Unresponsive',
    120_000,
  )
  process.kill(before.pid, 'SIGCONT')
  await untouched(lab, before)
  return {
    detectedMs: detected.at - began,
    recovery:
      'none, on purpose: a QEMU that may live is neither killed nor doubled; when it answers again it is Running again',
    manual: '`kill -CONT PID`, or `plasmavmc restart NAME`, which kills it after the grace period',
  }
}

function guestEnds(line: string, reason: string, recovery: string): Scenario['play'] {
  return async (lab) => {
    const { uid, before } = await booted(lab)
    const ended = lab.waitFor(
      reason,
      (vm) => vm.status?.lastExit?.reason === reason && vm.status.lastExit.launchId === before.launchId,
    )
    const back = lab.waitFor('another QEMU runs', replaced(before))
    await lab.get()
    const began = lab.now()
    await lab.type(uid, line)
    const [detected, recovered] = await Promise.all([ended, back])
    return { detectedMs: detected.at - began, recoveredMs: recovered.at - began, recovery, manual: 'none' }
  }
}

/** What both a killed host and a killed pair of server and QEMU leave behind: a record without a process. */
function everythingKilled(
  options: { readonly runDirGone: boolean },
  texts: Pick<Outcome, 'recovery' | 'manual'>,
) {
  return async (lab: Lab): Promise<Outcome> => {
    const { before } = await booted(lab)
    await lab.stopServer('SIGKILL')
    await lab.kill(before.pid)
    if (options.runDirGone) await lab.wipeRunDir()
    const began = lab.now()
    const ready = lab.startServer()
    await lab.answering()
    const [detected, recovered] = await Promise.all([
      lab.waitFor('the status shows it', recordedEnd(before)),
      lab.waitFor('another QEMU runs', replaced(before)),
    ])
    await ready
    return { detectedMs: detected.at - began, recoveredMs: recovered.at - began, ...texts }
  }
}

async function storeLost(lab: Lab): Promise<Outcome> {
  const { uid, before } = await booted(lab)
  await lab.stopServer('SIGKILL')
  await lab.wipeStore()
  const began = lab.now()
  await lab.startServer()
  await lab.until('the orphan is listed', 60_000, async () =>
    (await lab.cli('orphans', '-o', 'json')).includes(uid),
  )
  const detectedMs = lab.now() - began
  await lab.cli('adopt', uid)
  await untouched(lab, before)
  return {
    detectedMs,
    recovery: 'none, on purpose: its QEMU runs on and is listed; nobody can know whether it is still wanted',
    manual:
      '`plasmavmc orphans`, then `plasmavmc adopt UID`: declared again from its launch record, same process',
  }
}

/** In an order in which each leaves the machine running for the next. */
export const scenarios: readonly Scenario[] = [
  { name: 'server killed', play: serverEnds('SIGKILL') },
  { name: 'server restarted', play: serverEnds('SIGTERM') },
  { name: 'QEMU killed', play: qemuKilled },
  { name: 'QEMU hung (SIGSTOP)', play: qemuHung },
  {
    name: 'guest panic',
    play: guestEnds(
      'echo c > /proc/sysrq-trigger',
      'GuestPanicked',
      'started again; with back-off when it keeps panicking',
    ),
  },
  {
    name: 'guest poweroff',
    play: guestEnds(
      'poweroff -f',
      'GuestShutdown',
      'started again under Always; stays down under RerunOnFailure, Once and Manual',
    ),
  },
  {
    name: 'server and QEMU killed',
    play: everythingKilled(
      { runDirGone: false },
      {
        recovery:
          'the next server finds a record without a process and goes by the run strategy (from its start)',
        manual: 'none under a supervisor that restarts the server',
      },
    ),
  },
  {
    name: 'host reboot',
    play: everythingKilled(
      { runDirGone: true },
      {
        recovery: 'the server finds a record without a process and goes by the run strategy (from its start)',
        manual: 'none where the server starts at boot',
      },
    ),
  },
  { name: 'store lost', play: storeLost },
]

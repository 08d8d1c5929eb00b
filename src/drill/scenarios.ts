import { PlasmaError } from '../lib/errors.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { Lab } from './lab.ts'
import { expect, type Measured, type Mode, playIn } from './mode.ts'
import { startTimeOf } from './qemus.ts'

type Play = (lab: Lab) => Promise<Measured>

type Process = NonNullable<NonNullable<VirtualMachine['status']>['process']>

function processOf(vm: VirtualMachine): Process {
  const process = vm.status?.process
  if (!process)
    throw new PlasmaError('DrillFailed', `the machine has no process in the phase ${vm.status?.phase}`)
  return process
}

const running = (vm: VirtualMachine) => vm.status?.phase === 'Running'

/** Running under another pid than before. */
const replaced = (before: Process) => (vm: VirtualMachine) =>
  running(vm) && vm.status?.process !== undefined && vm.status.process.launchId !== before.launchId

const recordedEnd = (before: Process) => (vm: VirtualMachine) =>
  vm.status?.lastExit?.launchId === before.launchId

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

function serverEnds(signal: 'SIGKILL' | 'SIGTERM'): Play {
  return async (lab) => {
    const { before } = await booted(lab)
    await lab.stopServer(signal)
    expect(startTimeOf(before.pid) === before.startTime, 'the guest did not survive the server')
    const began = lab.now()
    await lab.startServer()
    await untouched(lab, before)
    const recoveredMs = lab.now() - began
    return { recoveredMs }
  }
}

async function qemuKilled(lab: Lab): Promise<Measured> {
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
  }
}

async function qemuHung(lab: Lab): Promise<Measured> {
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
  }
}

function guestEnds(line: string, reason: string): Play {
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
    return { detectedMs: detected.at - began, recoveredMs: recovered.at - began }
  }
}

/** What both a killed host and a killed pair of server and QEMU leave behind: a record without a process. */
function everythingKilled(options: { readonly runDirGone: boolean }): Play {
  return async (lab) => {
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
    return { detectedMs: detected.at - began, recoveredMs: recovered.at - began }
  }
}

async function storeLost(lab: Lab): Promise<Measured> {
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
  }
}

/** A way to fail that is played with one server, in a lab of its own: none inherits another's back-off. */
function onOneHost(name: string, recovery: string, manual: string, play: Play): Mode {
  const playOn: Mode['play'] = async (stage) =>
    playIn(await Lab.make(stage), stage, async (lab) => {
      stage.tell('a server and a machine start')
      await lab.startServer()
      await lab.apply()
      stage.tell('fails, and recovers')
      return play(lab)
    })
  return { group: 'one-host', name, recovery, manual, play: playOn }
}

const adopts = 'guest runs on; adopted (from the next start)'
const starts = 'started again (from the next start)'
const supervised = 'none under systemd'
const panics = guestEnds('echo c > /proc/sysrq-trigger', 'GuestPanicked')
const powersOff = guestEnds('poweroff -f', 'GuestShutdown')

export const oneHostModes: readonly Mode[] = [
  onOneHost('server killed', adopts, supervised, serverEnds('SIGKILL')),
  onOneHost('server restarted', adopts, supervised, serverEnds('SIGTERM')),
  onOneHost('QEMU killed', 'started again, with back-off', 'none', qemuKilled),
  onOneHost('QEMU hung', 'none: it may live', '`kill -CONT PID`, or `restart NAME`', qemuHung),
  onOneHost('guest panic', 'started again, with back-off', 'none', panics),
  onOneHost('guest poweroff', 'Always: started again; else stays down', 'none', powersOff),
  onOneHost('server and QEMU killed', starts, supervised, everythingKilled({ runDirGone: false })),
  onOneHost('host reboot', starts, supervised, everythingKilled({ runDirGone: true })),
  onOneHost('store lost', 'none: guest runs on, is listed', '`orphans`, then `adopt UID`', storeLost),
]

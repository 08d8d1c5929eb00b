import { closeSync, openSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { type Clock, rfc3339, sleep } from '../lib/clock.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { type CgroupLimits, Cgroups, limitsOf } from './cgroup.ts'
import { type Detached, spawnDetached } from './exec.ts'
import { firmwareCodeFor } from './firmware.ts'
import { checkForwardedPorts } from './forwarded-ports.ts'
import { QemuBinary } from './host-facts.ts'
import { holdLaunch, refuseListeners } from './launch-lock.ts'
import { manifestOf, readLaunchRecord, writeLaunchRecord } from './launch-record.ts'
import { vmPaths } from './paths.ts'
import type { LaunchRecord, LaunchRequest, ProcessExit, Processes, ProcessIdentity, Scan } from './ports.ts'
import { hasEnded, Procfs } from './procfs.ts'
import { checkUid, qemuArgs, specHash, uidOf } from './qemu-args.ts'
import { prepareRunFolder, tailOfFile } from './run-folder.ts'
import { isOurQemu, type KnownProcesses, scanProcesses } from './scan.ts'
import { TapWatch } from './tap-watch.ts'
import { ensureTaps, removeTaps } from './taps.ts'

export interface HostProcessesOptions {
  readonly runDir: string
  readonly hostName: string
  /** `qemu-system-x86_64` on PATH unless given. */
  readonly qemuBinary?: string
  /** What `auto` means on this host. */
  readonly accelerator: 'kvm' | 'tcg'
  readonly clock: Clock
  readonly log: Log
  readonly proc?: Procfs
  readonly cgroups?: Pick<Cgroups, 'enter' | 'remove'>
}

const outputBytes = 2048
const longestWaitMs = 500

type Launched = Awaited<ReturnType<Processes['launch']>>

/** QEMUs of this host. The rules that keep guests safe (one QEMU a machine, kill only what was identified) live here. */
export class HostProcesses implements Processes {
  readonly bootId: string
  readonly runDir: string
  readonly #options: HostProcessesOptions
  readonly #proc: Procfs
  readonly #qemu: QemuBinary
  readonly #cgroups: Pick<Cgroups, 'enter' | 'remove'>
  readonly #taps: TapWatch
  readonly #listeners = new Set<(exit: ProcessExit) => void>()
  readonly #launching = new Set<string>()
  readonly #entering = new Map<string, Promise<unknown>>()
  /** Processes that need no look at their cgroup any more, by pid and start time. */
  readonly #grouped = new Set<string>()
  /** Children whose end has not been told yet. */
  readonly #children = new Map<number, { readonly identity: ProcessIdentity; readonly told: Promise<void> }>()
  #known: KnownProcesses = new Map()

  constructor(options: HostProcessesOptions) {
    this.#options = options
    this.#proc = options.proc ?? new Procfs()
    this.#qemu = new QemuBinary(options.qemuBinary)
    this.#cgroups = options.cgroups ?? new Cgroups(options)
    this.#taps = new TapWatch(options.clock)
    this.bootId = this.#proc.bootId()
    this.runDir = options.runDir
  }

  /**
   * A QEMU that is starting or ending and that nobody has seen before is waited for, and so is the news of how an ended child ended, so that
   * whoever finds a child absent knows why: half a second each at most.
   */
  async scan(): Promise<Scan> {
    const { clock } = this.#options
    const start = clock.elapsed()
    for (;;) {
      const { passing, ...scan } = scanProcesses(this.#proc, this.bootId, this.#known)
      this.#known = new Map(scan.processes.map((found) => [found.pid, found]))
      if (passing === true && clock.elapsed() - start < longestWaitMs) await sleep(clock, 10)
      else {
        await this.#endsTold(new Set(this.#known.keys()))
        const found = this.#withOurRunDir(scan)
        void this.#regroup(found.processes)
        return found
      }
    }
  }

  async #endsTold(living: ReadonlySet<number>): Promise<void> {
    const ended = [...this.#children].filter(([pid]) => !living.has(pid))
    const news = ended.filter(([, { identity }]) => this.inspect(identity) === 'gone')
    if (news.length === 0) return
    await Promise.race([
      Promise.all(news.map(([, { told }]) => told)),
      sleep(this.#options.clock, longestWaitMs),
    ])
  }

  /** QEMUs that were started under another name of our run directory (a link to it) are ours too. */
  #withOurRunDir(scan: Scan): Scan {
    const { runDir } = this.#options
    const named = (process: Scan['processes'][number]) =>
      process.runDir !== undefined && this.#isOurRunDir(process.runDir) ? { ...process, runDir } : process
    return { ...scan, processes: scan.processes.map(named) }
  }

  /** Command lines name the run directory without links; a path of somebody else's is only compared, never opened. */
  #isOurRunDir(other: string): boolean {
    const { runDir } = this.#options
    return other === runDir || other === this.#realRunDir()
  }

  #realRunDir(): string {
    const { runDir } = this.#options
    try {
      return realpathSync(runDir)
    } catch {
      return runDir
    }
  }

  inspect(identity: ProcessIdentity): 'alive' | 'stopped' | 'gone' | 'unknown' {
    if (identity.bootId !== this.bootId) return 'gone'
    const stat = this.#proc.stat(identity.pid)
    if (stat.state === 'unreadable') return 'unknown'
    if (stat.state === 'gone' || stat.value.startTime !== identity.startTime || hasEnded(stat.value))
      return 'gone'
    return stat.value.state === 'T' || stat.value.state === 't' ? 'stopped' : 'alive'
  }

  /**
   * Node has no pidfd: a process that ends, is reaped by its parent and whose pid is given out again between the last
   * read below and kill(2) would get the signal. Both are system calls in a row, with no turn of the event loop
   * between them, and a pid comes again only after all others. A child of this process can't be hit at all: it stays
   * a zombie, its pid taken, until the event loop reaps it. (A descriptor of /proc/PID would not help: it keeps the
   * old entry readable, not the number.)
   */
  signal(
    identity: ProcessIdentity,
    uid: string,
    signal: 'SIGTERM' | 'SIGKILL' | 'SIGCONT',
  ): 'sent' | 'gone' | 'not-it' {
    // kill(2) takes 0 and negative numbers for whole groups.
    if (!Number.isSafeInteger(identity.pid) || identity.pid <= 1) return 'not-it'
    const argv = this.#proc.cmdline(identity.pid)
    // The start time last: it is what tells a pid that is used again.
    const state = this.inspect(identity)
    if (state === 'gone') return 'gone'
    if (state === 'unknown' || argv.state !== 'present') return 'not-it'
    if (!isOurQemu(argv.value, uid, (dir) => this.#isOurRunDir(dir))) return 'not-it'
    try {
      process.kill(identity.pid, signal)
      return 'sent'
    } catch (error) {
      if (errnoOf(error) === 'ESRCH') return 'gone'
      throw new PlasmaError('SignalFailed', `${signal} to ${identity.pid}: ${messageOf(error)}`, {
        cause: error,
      })
    }
  }

  async launch(request: LaunchRequest): Promise<Launched> {
    const uid = uidOf(request.vm)
    if (this.#launching.has(uid)) throw new PlasmaError('AlreadyRunning', `a launch of ${uid} is under way`)
    this.#launching.add(uid)
    let letGo = () => {}
    try {
      letGo = await holdLaunch(uid)
      return await this.#launch(uid, request)
    } finally {
      letGo()
      this.#launching.delete(uid)
    }
  }

  launchRecord(uid: string): Promise<LaunchRecord | undefined> {
    return readLaunchRecord(this.#paths(uid).launch)
  }

  async noteSpec(
    uid: string,
    launchId: string,
    { spec, pending }: Parameters<Processes['noteSpec']>[2],
  ): Promise<LaunchRecord | undefined> {
    const { launch } = this.#paths(uid)
    const found = await readLaunchRecord(launch)
    // A launch writes its own record, of which an older one has nothing to say.
    if (found?.launchId !== launchId || this.#launching.has(uid)) return undefined
    const { pending: _before, ...before } = found
    const left = pending.adding.length + pending.leaving.length > 0 ? { pending } : {}
    const manifest = { ...before.manifest, spec }
    const record: LaunchRecord = { ...before, specHash: specHash(spec), manifest, ...left }
    await writeLaunchRecord(launch, record)
    return record
  }

  async cleanup(uid: string): Promise<void> {
    const paths = this.#paths(uid)
    await this.#refuseIfAlive(uid, 'StillRunning')
    if (this.#launching.has(uid)) throw new PlasmaError('StillRunning', `a launch of ${uid} is under way`)
    const record = await readLaunchRecord(paths.launch).catch(() => undefined)
    if (record) await removeTaps(record.manifest)
    await rm(paths.dir, { recursive: true, force: true })
    // A group that is still being made would be left behind.
    await this.#entering.get(uid)
    await this.#cgroups.remove(uid)
  }

  looseTaps(vm: LaunchRequest['vm']) {
    return this.#taps.loose(vm)
  }

  attachTap(tap: string, bridge: string): Promise<void> {
    return this.#taps.attach(tap, bridge)
  }

  log(uid: string, bytes: number): Promise<string> {
    return tailOfFile(this.#paths(uid).log, bytes)
  }

  onExit(listener: (exit: ProcessExit) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #paths(uid: string) {
    return vmPaths(this.#options.runDir, checkUid(uid))
  }

  /** Never two QEMUs for one machine: whatever may be one, even if it can't be seen well, is one. */
  async #refuseIfAlive(uid: string, code: 'AlreadyRunning' | 'StillRunning'): Promise<void> {
    const { processes, incomplete } = await this.scan()
    const { runDir } = this.#options
    // One of another server's run directory keeps a machine from being started, but has nothing in ours.
    const counts = (named: string | undefined) => code === 'AlreadyRunning' || (named ?? runDir) === runDir
    const found = processes.find((candidate) => candidate.uid === uid && counts(candidate.runDir))
    if (found) throw new PlasmaError(code, `process ${found.pid} is a QEMU of ${uid}`)
    if (incomplete === undefined) return refuseListeners(this.#paths(uid), code)
    throw new PlasmaError(code, `a QEMU of ${uid} may live: ${incomplete}`, {
      hint: 'run PlasmaVMC so that it can read every process in /proc',
    })
  }

  async #launch(uid: string, request: LaunchRequest): Promise<Launched> {
    const { spec } = request.vm
    const paths = this.#paths(uid)
    await this.#refuseIfAlive(uid, 'AlreadyRunning')
    const { path: binary, version } = await this.#qemu.find()
    const accelerator = spec.accelerator === 'auto' ? this.#options.accelerator : spec.accelerator
    await checkForwardedPorts(spec)
    await prepareRunFolder(this.#options.runDir, paths)
    const { pidfile } = vmPaths(this.#realRunDir(), uid)
    const disks = await withFirmware(request)
    const args = qemuArgs({ ...request, paths: { ...paths, pidfile }, accelerator, disks })
    const record = this.#record(request, { accelerator, qemuVersion: version }, [binary, ...args])
    // Again, because the checks above took time in which another PlasmaVMC may have started it.
    await this.#refuseIfAlive(uid, 'AlreadyRunning')
    await writeLaunchRecord(paths.launch, record).catch((error: unknown) => {
      throw new PlasmaError('RunDirUnusable', `${paths.launch}: ${messageOf(error)}`, { cause: error })
    })
    // After the record, which is what tells the clean-up of them.
    await ensureTaps(request.vm)
    const start = { uid, launchId: request.launchId, log: paths.log }
    const identity = await this.#start(start, [binary, ...args], request.mayStart)
    this.#grouped.add(`${identity.pid}/${identity.startTime}`)
    this.#enterGroup(uid, identity.pid, limitsOf(spec, accelerator))
    return { ...identity, accelerator, specHash: record.specHash }
  }

  #enterGroup(uid: string, pid: number, limits: CgroupLimits): void {
    const entering = this.#cgroups.enter(uid, pid, limits)
    this.#entering.set(uid, entering)
    void entering.finally(() => this.#entering.delete(uid))
  }

  /** Looks once at each of our QEMUs that another life of this server started: it may have died before it could group it. */
  async #regroup(processes: Scan['processes']): Promise<void> {
    for (const { pid, startTime, uid, runDir, launchId } of processes) {
      const key = `${pid}/${startTime}`
      if (runDir !== this.#options.runDir || launchId === undefined || this.#grouped.has(key)) continue
      this.#grouped.add(key)
      const group = this.#proc.cgroup(pid)
      if (group.state !== 'present' || group.value.includes(uid)) continue
      const record = await this.launchRecord(uid).catch(() => undefined)
      if (record?.launchId !== launchId) continue
      const accelerator = record.accelerator === 'kvm' ? 'kvm' : 'tcg'
      this.#enterGroup(uid, pid, limitsOf(record.manifest.spec, accelerator))
    }
  }

  #record(
    request: LaunchRequest,
    facts: Pick<LaunchRecord, 'accelerator' | 'qemuVersion'>,
    argv: readonly string[],
  ): LaunchRecord {
    const { vm, launchId, epoch } = request
    const { hostName, clock } = this.#options
    return {
      ...{ version: 1, launchId, epoch, hostName, bootId: this.bootId, at: rfc3339(clock.now()) },
      ...{ ...facts, specHash: specHash(vm.spec), manifest: manifestOf(vm), argv },
    }
  }

  async #start(
    { log, ...launch }: Pick<ProcessExit, 'uid' | 'launchId'> & { readonly log: string },
    [binary = '', ...args]: readonly string[],
    mayStart: LaunchRequest['mayStart'],
  ): Promise<ProcessIdentity> {
    // What earlier launches wrote stays in the log but is not this one's last words.
    const written = statSync(log).size
    const lastWords = () => tailOfFile(log, outputBytes, written).catch((error: unknown) => messageOf(error))
    let output: number | undefined
    let child: Detached
    // No turn of the event loop between this and the fork.
    mayStart?.()
    try {
      output = openSync(log, 'a', 0o600)
      child = await spawnDetached(binary, args, { output })
    } catch (error) {
      throw new PlasmaError('LaunchFailed', messageOf(error), { cause: error })
    } finally {
      if (output !== undefined) closeSync(output)
    }
    // Read before the event loop can reap it: even a child that died at once is a zombie with its own start time.
    const stat = this.#proc.stat(child.pid)
    if (stat.state === 'unreadable') {
      // A QEMU that can't be identified can't be kept; it is our child, so that its pid is still its own.
      child.kill()
      await child.exited
      throw new PlasmaError(
        'LaunchFailed',
        `QEMU was stopped at once, as it can't be identified: ${stat.why}`,
      )
    }
    if (stat.state === 'gone' || hasEnded(stat.value)) throw await deadAtOnce(child, lastWords)
    ownOomScore(child.pid)
    const identity = { pid: child.pid, startTime: stat.value.startTime, bootId: this.bootId }
    const told = child.exited.then((how) => this.#reportExit({ ...launch, identity, ...how }, lastWords))
    this.#children.set(child.pid, { identity, told })
    void told.finally(() => this.#children.delete(child.pid))
    return identity
  }

  async #reportExit(exit: Omit<ProcessExit, 'output'>, lastWords: () => Promise<string>): Promise<void> {
    const output = await lastWords()
    for (const listener of [...this.#listeners]) {
      try {
        listener({ ...exit, output })
      } catch (error) {
        this.#options.log.error('listener of exits failed', { uid: exit.uid, err: error })
      }
    }
  }
}

/**
 * A server that is spared by the kernel when memory runs out (OOMScoreAdjust= of its unit) must not pass that on to
 * its guests. Best effort: lowering a score takes a capability.
 */
function ownOomScore(pid: number): void {
  try {
    if (readFileSync('/proc/self/oom_score_adj', 'utf8').trim() !== '0')
      writeFileSync(`/proc/${pid}/oom_score_adj`, '0')
  } catch {
    // It keeps ours.
  }
}

async function deadAtOnce(child: Detached, lastWords: () => Promise<string>): Promise<PlasmaError> {
  const { exitCode, signal } = await child.exited
  const how = signal ?? `exit code ${exitCode}`
  const output = (await lastWords()).trim() || 'it wrote nothing'
  return new PlasmaError('LaunchFailed', `QEMU ended at once (${how}): ${output}`)
}

async function withFirmware({ vm, disks }: LaunchRequest): Promise<ReadonlyMap<string, string>> {
  const vars = disks.get('efi-vars')
  if (vm.spec.firmware !== 'uefi' || disks.has('efi-code') || vars === undefined) return disks
  return new Map([...disks, ['efi-code', await firmwareCodeFor(vars)]])
}

import { randomUUID } from 'node:crypto'
import { runVmController } from '../../src/controllers/vm/start.ts'
import { QmpMachines } from '../../src/host/machines.ts'
import type { Disks, ProcessExit, Processes, Tenure } from '../../src/host/ports.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import type { Procfs } from '../../src/host/procfs.ts'
import { runFolders } from '../../src/host/run-folder.ts'
import { specHash } from '../../src/host/spec-hash.ts'
import type { Clock } from '../../src/lib/clock.ts'
import type { Fields, Log } from '../../src/lib/log.ts'
import type { Meter } from '../../src/lib/measures.ts'
import type { LocalDisk } from '../../src/resources/disk-reach.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { Informer } from '../../src/runtime/informer.ts'
import { EventRecorder } from '../../src/store/events.ts'
import type { ObjectStore } from '../../src/store/objects.ts'

export const hostName = 'host-a'

export interface AgentOptions {
  /** `host-a` unless given. */
  readonly hostName?: string
  /** `single` unless given. */
  readonly tenure?: () => Tenure
  readonly localDisks?: (vm: VirtualMachine) => readonly LocalDisk[]
  readonly runDir: string
  readonly objects: ObjectStore
  readonly clock: Clock
  readonly meter?: Meter
  readonly disks: Disks
  readonly qemuBinary: string
  /** For a greeting or an answer, ms. */
  readonly statusTimeoutMs?: number
  readonly resyncMs?: number
  readonly proc?: Procfs
  /** Puts something of the test between the controller and the processes. */
  readonly wrap?: (processes: Processes) => Processes
}

/** Keeps what was logged, for the message of a test that fails. */
export function keptLog(lines: string[]): Log {
  const put = (level: string) => (message: string, fields?: Fields) => {
    const shown = JSON.stringify(fields ?? {}, (_, value) => (value instanceof Error ? value.message : value))
    if (level !== 'debug') lines.push(`${level} ${message} ${shown}`)
  }
  const log: Log = {
    ...{ debug: put('debug'), info: put('info'), warn: put('warn'), error: put('error') },
    child: () => log,
  }
  return log
}

/** The part of the server that owns a host's machines, in this process: the real parts, wired as the server wires them. */
export class TestAgent {
  readonly processes: HostProcesses
  readonly vms: Informer<VirtualMachine>
  /** Machines' ends that this agent was told of. */
  readonly exits: ProcessExit[] = []
  readonly log: string[] = []
  readonly recorder: EventRecorder
  readonly #machines: QmpMachines
  readonly #stop = new AbortController()
  readonly #running: Promise<unknown>
  readonly #busy = new Set<string>()
  #passes = 0
  #onPass: () => void = () => {}

  constructor(options: AgentOptions) {
    const { runDir, objects, clock, qemuBinary, statusTimeoutMs = 3_000, proc } = options
    const { hostName: host = hostName, tenure, localDisks } = options
    const log = keptLog(this.log)
    const cgroups = { enter: async () => 'entered' as const, remove: async () => {} }
    this.processes = new HostProcesses({
      ...{ runDir, hostName: host, qemuBinary, accelerator: 'tcg', clock, log, cgroups },
      ...(proc && { proc }),
    })
    this.processes.onExit((exit) => this.exits.push(exit))
    this.#machines = new QmpMachines({
      runDir,
      clock,
      log,
      statusTimeoutMs,
      handshakeMs: statusTimeoutMs,
      waitMs: 500,
      ...(options.meter && { meter: options.meter }),
    })
    this.vms = new Informer(objects, VirtualMachine, log)
    this.recorder = new EventRecorder(objects, { clock, component: 'test', host, log })
    const disks = this.#noticePasses(options.disks)
    const loop = runVmController(
      {
        ...{
          hostName: host,
          hostLabels: () => ({}),
          objects,
          vms: this.vms,
          machines: this.#machines,
          disks,
        },
        ...{ processes: options.wrap?.(this.processes) ?? this.processes, specHash, newId: randomUUID },
        ...{ clock, log, resyncMs: options.resyncMs ?? 300 },
        ...(options.meter && { meter: options.meter }),
        ...(tenure && { tenure }),
        ...(localDisks && { localDisks }),
        runFolders: () => runFolders(runDir),
        tell: (vm, happening) => this.recorder.record(VirtualMachine, vm, happening),
        onPass: (key) => this.#ended(key),
      },
      this.#stop.signal,
    )
    this.#running = Promise.allSettled([loop, this.vms.run(this.#stop.signal)])
  }

  /** Whether no pass is under way: then a leap of the clock ends no deadline. */
  get idle(): boolean {
    return this.#busy.size === 0
  }

  /** Resolves when so many more passes have ended. */
  async passes(count: number): Promise<void> {
    const target = this.#passes + count
    while (this.#passes < target)
      await new Promise<void>((resolve) => {
        this.#onPass = resolve
      })
  }

  /** Stops as the server does: QEMUs live on. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
    await this.recorder.flush()
    await this.#machines.close()
  }

  /** Every pass looks at the disks, first or nearly so. */
  #noticePasses(disks: Disks): Disks {
    const keyOf = (vm: VirtualMachine) => `${vm.metadata.namespace}/${vm.metadata.name}`
    return {
      observe: (vm) => {
        this.#busy.add(keyOf(vm))
        return disks.observe(vm)
      },
      prepare: (vm, only) => disks.prepare(vm, only),
      checkGrowth: (vm, name) => disks.checkGrowth(vm, name),
      remove: (vm) => disks.remove(vm),
      onChange: (listener) => disks.onChange(listener),
      close: () => disks.close(),
    }
  }

  #ended(key: string): void {
    this.#busy.delete(key)
    this.#passes += 1
    this.#onPass()
  }
}

/**
 * What this program measures, as data: the registry of the server, docs/reference/metrics.md and the types of `Meter`
 * derive from it. Names follow Prometheus' and those of KubeVirt (kubevirt_vmi_*), controller-runtime and client-go
 * (reconcile_*, workqueue_*) and kube-apiserver (apiserver_*), with our prefix.
 *
 * Every label has a fixed or bounded set of values; no measure has one for each machine, but for
 * `plasmavmc_vm_unhealthy`, which has at most 100 series.
 */
type Type = 'counter' | 'gauge' | 'histogram'

interface Measure<T extends Type, L extends readonly string[]> {
  readonly type: T
  /** One sentence for `# HELP` and the reference. */
  readonly help: string
  readonly labels: L
  /** Upper bounds, for histograms only. */
  readonly buckets?: readonly number[]
  /** Read like a gauge, but it only grows. */
  readonly shown?: 'counter'
}

const counter = <const L extends readonly string[]>(help: string, ...labels: L): Measure<'counter', L> => ({
  ...{ type: 'counter', help, labels },
})
const gauge = <const L extends readonly string[]>(help: string, ...labels: L): Measure<'gauge', L> => ({
  ...{ type: 'gauge', help, labels },
})
const total = (help: string): Measure<'gauge', readonly []> => ({
  ...{ type: 'gauge', help, labels: [], shown: 'counter' },
})
const histogram = <const L extends readonly string[]>(
  buckets: readonly number[],
  help: string,
  ...labels: L
): Measure<'histogram', L> => ({ type: 'histogram', help, labels, buckets })

/** Seconds of what takes milliseconds: requests, commands, passes, store operations. */
const quick = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
/** Seconds of what machines do. */
const slow = [0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 3_600]

const machines = {
  plasmavmc_vm_phase_count: gauge(
    'Machines by phase and namespace, told by the one server that leads or is alone; of more than 100 namespaces the smallest are summed as _other.',
    'phase',
    'namespace',
  ),
  plasmavmc_vm_unhealthy: gauge(
    'Machines in CrashLoopBackOff, Failed, Unresponsive or Unknown, by name, so that an alert can say which; at most 100.',
    'namespace',
    'name',
    'phase',
  ),
  plasmavmc_vm_phase_transitions_total: counter('Changes of phase that were stored.', 'from', 'to'),
  plasmavmc_vm_phase_transition_time_seconds: histogram(
    slow,
    'How long machines were in the phase that they left.',
    'phase',
    'last_phase',
  ),
  plasmavmc_vm_phase_transition_time_from_creation_seconds: histogram(
    slow,
    'From the creation of a machine to its first time in a phase, until it first runs.',
    'phase',
  ),
  plasmavmc_vm_restarts_total: counter('Launches after the first, as status.restarts counts them.'),
  plasmavmc_vm_exits_total: counter('Ends of QEMUs, by the reason in status.lastExit.', 'reason'),
}

const controllers = {
  plasmavmc_controller_reconcile_total: counter(
    'Passes by how they ended: success, requeue, requeue_after, conflict or error.',
    'controller',
    'result',
  ),
  plasmavmc_controller_reconcile_errors_total: counter('Passes that failed.', 'controller'),
  plasmavmc_controller_reconcile_time_seconds: histogram(quick, 'How long passes take.', 'controller'),
  plasmavmc_controller_max_concurrent_reconciles: gauge('Passes that may run at once.', 'controller'),
  plasmavmc_controller_active_workers: gauge('Passes under way.', 'controller'),
  plasmavmc_workqueue_depth: gauge('Keys that wait for a worker.', 'name'),
  plasmavmc_workqueue_adds_total: counter('Keys that were put in line.', 'name'),
  plasmavmc_workqueue_retries_total: counter('Keys put back after a pass that failed.', 'name'),
  plasmavmc_workqueue_queue_duration_seconds: histogram(quick, 'How long keys wait for a worker.', 'name'),
  plasmavmc_workqueue_work_duration_seconds: histogram(quick, 'How long workers hold a key.', 'name'),
  plasmavmc_workqueue_unfinished_work_seconds: gauge('Age of all passes under way, summed.', 'name'),
  plasmavmc_workqueue_longest_running_processor_seconds: gauge('Age of the oldest pass under way.', 'name'),
}

const qemu = {
  plasmavmc_qmp_command_duration_seconds: histogram(
    quick,
    "From a QMP command to QEMU's answer, good or bad.",
    'command',
  ),
  plasmavmc_qmp_command_errors_total: counter(
    'QMP commands that failed: refused by QEMU, timeout, interrupted, or another error.',
    'command',
    'reason',
  ),
}

const cluster = {
  plasmavmc_leader_leading_status: gauge('1 where this server leads, 0 where it could.'),
  plasmavmc_leader_terms_total: counter('Terms that this server began as the leader.'),
  plasmavmc_lease_held: gauge("1 while the guard holds this host's lease, by what it told last."),
  plasmavmc_lease_age_seconds: gauge("Since the last renewal of this host's lease that succeeded was sent."),
  plasmavmc_lease_deadline_seconds: gauge(
    'At this age of the lease this host stops its failover-enabled machines.',
  ),
  plasmavmc_host_lease_silence_seconds: gauge(
    "For how long a host's lease is unchanged for certain, as a server that may lead sees it.",
    'host',
  ),
  plasmavmc_host_lease_renewals_total: counter(
    "Changes of a host's lease, as a server that may lead sees them by looking once a second.",
    'host',
  ),
  plasmavmc_host_state: gauge(
    '1 for the state of each host as the leader judges it: Ready, NotReady, Lost or Fenced.',
    'host',
    'state',
  ),
  plasmavmc_brake_held: gauge('1 while so many hosts look lost at once that the leader fences none.'),
  plasmavmc_fence_evidence_total: counter('Evidence stored that a host is dead, by its proof.', 'proof'),
  plasmavmc_fence_steps_failed_total: counter('Steps against lost hosts that failed.', 'step'),
  plasmavmc_failovers_total: counter(
    'Machines that left a host which is lost: Fenced where it is proven dead and they may have run there, HostLost or AgentSilent where nothing of them ran.',
    'reason',
  ),
  plasmavmc_placement_attempts_total: counter(
    'Decisions on machines without a host: placed, unplaced, or refused by the store.',
    'result',
  ),
  plasmavmc_placement_unplaced: gauge('Machines that no host takes, at the last pass.'),
}

const api = {
  plasmavmc_apiserver_request_total: counter('Requests answered.', 'verb', 'resource', 'subresource', 'code'),
  plasmavmc_apiserver_request_duration_seconds: histogram(
    quick,
    'From a request to the head of its answer; watches are left out.',
    'verb',
    'resource',
    'subresource',
  ),
  plasmavmc_apiserver_current_inflight_requests: gauge('Requests being answered.'),
  plasmavmc_apiserver_longrunning_requests: gauge(
    'Watches (verb watch), and consoles and displays (verb connect) under way.',
    'verb',
    'resource',
  ),
  plasmavmc_apiserver_watches_cut_total: counter(
    'Watches that were cut because their client took nothing.',
    'resource',
  ),
}

const parts = {
  plasmavmc_events_total: counter(
    'Kubernetes Events by what became of them: created, counted (an older one grew), spam (over the limit of its object), dropped (too many waited) or failed.',
    'result',
  ),
  plasmavmc_store_operation_duration_seconds: histogram(
    quick,
    'How long operations of the store take.',
    'operation',
  ),
  plasmavmc_store_operation_errors_total: counter(
    'Operations of the store that failed, by the reason of the error.',
    'operation',
    'reason',
  ),
  plasmavmc_store_available: gauge('1 where the store answers and takes writes, as /readyz asks it.'),
  plasmavmc_certificate_expiry_timestamp_seconds: gauge(
    'When a certificate of the API runs out, seconds since 1970.',
    'certificate',
  ),
  plasmavmc_build_info: gauge('1, with the version of the program and of what runs it.', 'version', 'nodejs'),
  plasmavmc_metrics_series_dropped_total: counter(
    'Measurements that would have made one series too many.',
    'metric',
  ),
  process_cpu_seconds_total: total('Processor time used, user and system.'),
  process_resident_memory_bytes: gauge('Resident memory.'),
  process_open_fds: gauge('Open file descriptors.'),
  process_max_fds: gauge('Most file descriptors that may be open.'),
  process_start_time_seconds: gauge('When the process began, seconds since 1970.'),
  nodejs_heap_size_used_bytes: gauge('Memory of objects.'),
  nodejs_external_memory_bytes: gauge('Memory of buffers and native parts.'),
  nodejs_eventloop_active_seconds_total: total('Time for which the event loop had work to do.'),
  nodejs_eventloop_lag_max_seconds: gauge(
    'How late the latest of the timers came that are set once a second, since the metrics were last read.',
  ),
}

export const measures = { ...machines, ...controllers, ...qemu, ...cluster, ...api, ...parts } as const

export type MeasureName = keyof typeof measures
type NameOf<T extends Type> = {
  [N in MeasureName]: (typeof measures)[N]['type'] extends T ? N : never
}[MeasureName]
export type CounterName = NameOf<'counter'>
export type GaugeName = NameOf<'gauge'>
export type HistogramName = NameOf<'histogram'>
/** A value for every label of a measure. */
export type LabelsOf<N extends MeasureName> = Readonly<Record<(typeof measures)[N]['labels'][number], string>>

/** What a gauge reads at one moment. */
export type Readings<N extends GaugeName> = Iterable<readonly [labels: LabelsOf<N>, value: number]>

/**
 * Where measurements go. Cheap enough for the busiest loop (about a microsecond), never throws, never waits. Gauges are
 * not written but asked for, and only while somebody reads the metrics.
 */
export interface Meter {
  /** @param by 1 unless given; not negative */
  add<N extends CounterName>(name: N, labels: LabelsOf<N>, by?: number): void
  /** @param value in the unit of the name, which is seconds unless it says otherwise */
  observe<N extends HistogramName>(name: N, labels: LabelsOf<N>, value: number): void
  /**
   * `read` is called at each look at the metrics; several of one name add up to one measure, and one that throws is left
   * out. @returns unsubscribe
   */
  gauge<N extends GaugeName>(name: N, read: () => Readings<N> | Promise<Readings<N>>): () => void
}

/** Measures nothing; for tests, one-shot commands and the simulator. */
export const unmetered: Meter = { add() {}, observe() {}, gauge: () => () => {} }

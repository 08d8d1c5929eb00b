/** Every RunState of QEMU 7.2's QAPI (qapi/run-state.json), and `suspended`… as later ones have them. */
export const runStates = [
  'debug',
  'inmigrate',
  'internal-error',
  'io-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'restore-vm',
  'running',
  'save-vm',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'colo',
] as const
export type RunState = (typeof runStates)[number]

export interface StatusInfo {
  readonly running: boolean
  readonly status: RunState
}

/** An event as QEMU sent it; `timestamp` is QEMU's wall clock. */
export interface QmpEvent {
  readonly event: string
  readonly data?: Readonly<Record<string, unknown>>
  readonly timestamp: { readonly seconds: number; readonly microseconds: number }
}

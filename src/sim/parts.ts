import type { AskVotes } from '../controllers/hosts/types.ts'
import type { FenceResult } from '../host/guard-fence.ts'
import type { Processes, Tenure } from '../host/ports.ts'
import type { SimHost } from './host.ts'
import type { World } from './world.ts'

/**
 * Ports put wrong on purpose: each is given the right one. Only tests do that, to see that the rules notice and that
 * random schedules find it.
 */
export interface Mistakes {
  /** How machines are stopped that are to be started elsewhere. */
  readonly fence?: (stop: () => Promise<FenceResult>) => () => Promise<FenceResult>
  readonly votes?: (ask: AskVotes) => AskVotes
  readonly tenure?: (read: () => Tenure) => () => Tenure
  readonly processes?: (right: Processes, host: SimHost) => Processes
  /** What a guard answers others. */
  readonly answer?: (reply: unknown) => unknown
  /** The rate of a host's clock. */
  readonly rate?: (right: number, host: string) => number
  /** The store writes whatever it is asked to, whatever it has. */
  readonly blindWrites?: boolean
}

/**
 * What runs on a host. The one of the product is made of the controllers themselves; a test puts others in their place
 * to see that the rules notice.
 */
export interface HostParts {
  /** Starts what a host starts when it boots. */
  boot(host: SimHost, world: World): void
  /** Starts the agent's process, in place of the one before. */
  agent(host: SimHost, world: World): void
  /** Starts the guard's process, in place of the one before. */
  guard(host: SimHost, world: World): void
  readonly mistakes?: Mistakes
}

import type { SimHost } from './host.ts'
import type { World } from './world.ts'

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
}

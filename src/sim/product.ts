import { startAgent } from './agent.ts'
import type { HostParts } from './parts.ts'

/** What runs on a host in truth. */
export const product: HostParts = {
  boot: (host, world) => startAgent(host, world),
  agent: startAgent,
  guard: () => {},
}

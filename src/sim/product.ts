import { startAgent } from './agent.ts'
import { startGuard } from './guard.ts'
import type { HostParts } from './parts.ts'

/** What runs on a host in truth. The agent starts its guard. */
export const product: HostParts = { boot: startAgent, agent: startAgent, guard: startGuard }

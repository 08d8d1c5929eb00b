import { z } from 'zod'
import { ProtocolError } from './errors.ts'
import { runStates, type StatusInfo } from './types.ts'

const statusInfo = z.object({ running: z.boolean(), status: z.enum(runStates) })

/** The answer of query-status (qapi/run-state.json StatusInfo). @throws ProtocolError where it is none */
export function parseStatus(value: unknown): StatusInfo {
  const parsed = statusInfo.safeParse(value)
  if (parsed.success) return parsed.data
  throw new ProtocolError('BadAnswer', `query-status answered ${JSON.stringify(value)?.slice(0, 200)}`)
}

import type { Draft } from './draft.ts'
import type { ProcessFact } from './types.ts'

/** How soon after a tap was put back it is looked at again. */
const attachedRecheckMs = 1_000

/** Tells of network cards that lead nowhere, and puts those back whose bridge is there again. */
export function planTaps(draft: Draft, { looseTaps = [] }: Extract<ProcessFact, { state: 'alive' }>): void {
  const before = draft.vm.status?.conditions.find(({ type }) => type === 'Synchronized')
  const wasLoose = before?.reason === 'NetworkDetached'
  if (looseTaps.length === 0) {
    if (wasLoose) draft.announce('Normal', 'NetworkAttached', 'its network cards are where they belong again')
    return
  }
  const message = looseTaps.map((tap) => tap.message).join('; ')
  if (!wasLoose) draft.announce('Warning', 'NetworkDetached', message)
  draft.condition('Synchronized', 'False', 'NetworkDetached', message)
  for (const { tap, attach } of looseTaps) {
    if (attach === undefined) continue
    draft.act({ do: 'attachTap', tap, bridge: attach })
    draft.recheckIn(attachedRecheckMs)
  }
}

import type { AskVotes } from '../controllers/hosts/types.ts'
import type { Tenure } from '../host/ports.ts'
import type { SimProcess } from './clock.ts'
import type { SimHost } from './host.ts'
import type { World } from './world.ts'

export function tenureOn(_host: SimHost, _process: SimProcess): () => Tenure {
  return () => ({ state: 'held', epoch: 1, leftMs: 5000 })
}

export function watchGuard(_host: SimHost, _world: World, _process: SimProcess): Promise<unknown> {
  return new Promise(() => {})
}

export function askVotes(_from: string, _world: World, _process: SimProcess): AskVotes {
  return async () => ({ consents: [], refusals: [] })
}

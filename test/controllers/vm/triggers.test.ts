import { expect, test } from 'vitest'
import { vmTriggers } from '../../../src/controllers/vm/triggers.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { machine } from './fixture.ts'

const quiet = { onChange: () => () => {}, onExit: () => () => {} }

test('a host that is open again looks at once at what it refused, and at nothing else', () => {
  const waiting = machine()
  const mine = machine({}, { hostName: 'host-a' })
  mine.metadata.name = 'mine'
  let open = () => {}
  const keys: string[] = []
  vmTriggers({
    ...{ vms: { ...quiet, list: () => [waiting, mine] }, machines: quiet, processes: quiet, disks: quiet },
    ...{ keyOfUid: () => undefined, resyncMs: 10_000, clock: new VirtualClock(), log: silentLog },
    onOpened: (listener) => {
      open = listener
      return () => {}
    },
  }).subscribe((key) => keys.push(key))
  expect(keys).toEqual([])
  open()
  expect(keys).toEqual([`default/${waiting.metadata.name}`])
})

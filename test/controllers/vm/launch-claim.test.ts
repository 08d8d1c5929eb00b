import { expect, test } from 'vitest'
import { execute } from '../../../src/controllers/vm/execute.ts'
import { Memories } from '../../../src/controllers/vm/memory.ts'
import type { Machines, Processes } from '../../../src/host/ports.ts'
import { PlasmaError } from '../../../src/lib/errors.ts'
import { silentLog } from '../../../src/lib/log.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'
import { PlainDisks } from '../../fakes/plain-disks.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { identity, machine, time, uid } from './fixture.ts'

type Claim = { readonly by: string; readonly field: string; readonly path: string } | undefined

/** Executes a launch as recorded. @returns what was asked in order, and why it was given up */
async function launched(claim: () => Promise<Claim>, exports: readonly string[] | undefined) {
  const asked: string[] = []
  const memories = new Memories()
  const never = () => Promise.reject(new Error('not asked for here'))
  const processes = {
    launch: async () => {
      asked.push('fork')
      return { ...identity, accelerator: 'tcg', specHash: 'same' }
    },
    launchRecord: async () => undefined,
  } as unknown as Processes
  const machines = { forget: () => {}, execute: never } as unknown as Machines
  const launch = { id: 'l-1', at: time(), bootId: 'boot-1' }
  await execute(
    { do: 'launch', launchId: 'l-1' },
    machine({}, { launch, ...(exports && { exports: [...exports] }) }),
    {
      ...{
        processes,
        machines,
        memories,
        disks: new PlainDisks(),
        clock: new VirtualClock(),
        log: silentLog,
      },
      ...{ objects: {} as ObjectStore, tenure: () => ({ state: 'single' }) },
      claimAfter: (_vm, launchId) => {
        asked.push(`claims after ${launchId}`)
        return claim()
      },
    },
  )
  return { asked, code: memories.of(uid).launchError?.code }
}

const claim = { by: 'default/b', field: 'spec.disks[0].nbd', path: 'nas:10809/x' }

test('whose an export is is asked after the launch is recorded, right before the fork', async () => {
  expect(await launched(async () => undefined, ['nas:10809/x'])).toEqual({
    asked: ['claims after l-1', 'fork'],
    code: undefined,
  })
})

test('an export that another has recorded meanwhile is not opened', async () => {
  expect(await launched(async () => claim, ['nas:10809/x'])).toEqual({
    asked: ['claims after l-1'],
    code: 'DiskInUse',
  })
})

test('nor is one of which that is not known', async () => {
  const unknown = () => Promise.reject(new PlasmaError('ClaimsUnknown', 'too late'))
  expect(await launched(unknown, ['nas:10809/x'])).toEqual({
    asked: ['claims after l-1'],
    code: 'ClaimsUnknown',
  })
})

test('a machine that writes to no export does not wait', async () => {
  expect((await launched(async () => claim, undefined)).asked).toEqual(['fork'])
})

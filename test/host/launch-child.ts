import { HostProcesses } from '../../src/host/processes.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { messageOf } from '../../src/lib/errors.ts'
import { silentLog } from '../../src/lib/log.ts'
import { machine } from './machines.ts'

/** A server of its own, as far as launches go: says `ready`, then launches when it is told to, and says how it went. */
const [, , runDir = '', uid = '', launchId = ''] = process.argv
const common = { hostName: 'h1', accelerator: 'tcg', clock: systemClock, log: silentLog } as const
const host = new HostProcesses({ runDir, ...common })
const tell = (message: unknown) => process.send?.(message)

process.once('message', async () => {
  try {
    const vm = machine({ memory: '64Mi' }, uid)
    tell(await host.launch({ vm, launchId, epoch: 1, disks: new Map() }))
  } catch (error) {
    tell({ code: (error as { code?: string }).code, message: messageOf(error) })
  }
})
tell('ready')

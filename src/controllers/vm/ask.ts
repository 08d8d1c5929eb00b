import type { Machines } from '../../host/ports.ts'
import { diskDeviceId } from '../../host/qemu-disks.ts'
import type { FailedDisk } from './types.ts'

const diskPrefix = `/machine/peripheral/${diskDeviceId('')}`

/** The disk a device's QOM path belongs to; undefined for a device that is none of ours. */
function diskOf(qdev: string | undefined): string | undefined {
  const path = qdev ?? ''
  return path.startsWith(diskPrefix) ? path.slice(diskPrefix.length).split('/')[0] : undefined
}

/** The disks for which QEMU holds a guest; undefined where it does not say. Never rejects. */
export async function askFailedDisks(
  uid: string,
  machines: Machines,
): Promise<readonly FailedDisk[] | undefined> {
  try {
    const blocks = await machines.execute(uid, 'query-block')
    return blocks.flatMap(({ qdev, 'io-status': status }) => {
      const name = diskOf(qdev)
      return name === undefined || status === undefined || status === 'ok'
        ? []
        : [{ name, noSpace: status === 'nospace' }]
    })
  } catch {
    // The state itself is known; this only names the disk.
    return undefined
  }
}

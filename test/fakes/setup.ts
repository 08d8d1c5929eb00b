import { mkdirSync, renameSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Gives the Node.js that runs the tests a QEMU's name, under which the fake QEMU runs. */
export default function setup(): void {
  const folder = fileURLToPath(new URL('../../.cache/fake-qemu', import.meta.url))
  mkdirSync(folder, { recursive: true })
  // Renamed into place: another run may be using the one that is there.
  const part = join(folder, `part-${process.pid}`)
  symlinkSync(process.execPath, part)
  renameSync(part, join(folder, 'qemu-system-x86_64'))
}

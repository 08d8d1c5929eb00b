import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeFileAtomic } from '../lib/atomic-file.ts'
import { errnoOf, PlasmaError } from '../lib/errors.ts'

/**
 * What tells this host from another by the same name: a random id in its data folder, made at the first call.
 * @throws PlasmaError `BadHostId` where the file holds something else; the system's errors
 */
export function hostIdOf(dataDir: string): string {
  const file = join(dataDir, 'host-id')
  try {
    return parse(file, readFileSync(file, 'utf8'))
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
  try {
    writeFileAtomic(file, `${randomUUID()}\n`, { mode: 0o600, exclusive: true })
  } catch (error) {
    // Server and guard may start at the same time: what the first of them wrote counts for both.
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  return parse(file, readFileSync(file, 'utf8'))
}

function parse(file: string, text: string): string {
  const id = text.trim()
  if (/^[0-9a-f-]{36}$/.test(id)) return id
  throw new PlasmaError('BadHostId', `${file} holds no id`, {
    hint: 'it tells this host from others by the same name: restore it from a backup, or remove it to register anew',
  })
}

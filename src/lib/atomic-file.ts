import { closeSync, fsyncSync, linkSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * Writes a whole file so that a crash leaves the old one or the new one, never a part: temporary file, fsync, rename,
 * fsync of the directory. With `exclusive` an existing file stays and EEXIST is thrown.
 * @throws the system's errors
 */
export function writeFileAtomic(
  file: string,
  data: string | Uint8Array,
  options: { readonly mode: number; readonly exclusive?: boolean },
): void {
  const temporary = `${file}.${process.pid}.tmp`
  rmSync(temporary, { force: true })
  try {
    const fd = openSync(temporary, 'wx', options.mode)
    try {
      writeFileSync(fd, data)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    if (options.exclusive) linkSync(temporary, file)
    else renameSync(temporary, file)
  } finally {
    rmSync(temporary, { force: true })
  }
  const directory = openSync(dirname(file), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

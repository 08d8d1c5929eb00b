import { constants } from 'node:fs'
import { access, copyFile, link, mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'

const files = ['vmlinuz', 'initrd.img'] as const

/** Hard-links where both lie on one file system, copies elsewhere. */
async function provide(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return
    await copyFile(from, to, constants.COPYFILE_FICLONE)
  }
}

/**
 * Puts the hello machine's kernel and RAM disk into `<data-dir>/images/hello`; safe to repeat.
 * @throws PlasmaError `NoGuest` where the checkout has none
 */
export async function provideHelloImages(root: string, dataDir: string): Promise<void> {
  const source = join(root, '.cache', 'guest')
  const target = join(dataDir, 'images', 'hello')
  await mkdir(target, { recursive: true })
  for (const name of files) {
    const from = join(source, name)
    const to = join(target, name)
    const there = await stat(to).then(
      () => true,
      () => false,
    )
    if (there) continue
    try {
      await access(from, constants.R_OK)
      await provide(from, to)
    } catch (error) {
      throw new PlasmaError('NoGuest', `cannot put ${from} into ${target}: ${messageOf(error)}`, {
        hint: "run 'npm run setup', which builds the small guest",
        cause: error,
      })
    }
  }
}

/**
 * Packs the program into a few files in .cache/bundle, for a quick start: loading a thousand small files costs a second
 * of processor time. bin/plasmavmc runs it while it is newer than the sources, and the sources otherwise. An argument
 * names another folder in .cache.
 */
import { mkdir, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = fileURLToPath(new URL('..', import.meta.url))
const target = join(root, '.cache', process.argv[2] ?? 'bundle')
const part = `${target}.part`
// As of the start: what changes while we pack must make the pack stale.
const began = new Date()

await rm(part, { recursive: true, force: true })
await mkdir(part, { recursive: true })
const build = await rolldown({
  input: join(root, 'src', 'main.ts'),
  platform: 'node',
  // They load native code, and protocol files, from beside themselves.
  external: ['lmdb', 'etcd3'],
  logLevel: 'warn',
})
await build.write({ dir: part, format: 'esm', entryFileNames: '[name].js', minifyInternalExports: false })
await build.close()
// The nearest package.json says that these are ES modules without node having to look into them.
await writeFile(join(part, 'package.json'), '{ "type": "module" }\n')
await writeFile(join(part, 'stamp'), `${began.toISOString()}\n`)
await utimes(join(part, 'stamp'), began, began)
await rm(target, { recursive: true, force: true })
await rename(part, target)

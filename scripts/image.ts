/**
 * Makes the folder that an image holds, from a checkout that is set up and packed: image.ts DIR. It has no sources, so
 * that bin/plasmavmc takes the packed program whatever the times of files. Of node_modules it has what the pack leaves
 * outside; of what is in the pack the package.json and licence, for who has to know what an image is made of.
 */
import { existsSync } from 'node:fs'
import { cp, mkdir, readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What the pack loads from node_modules: native code, and what few starts need. */
const outside = ['lmdb', 'yaml']
const told = /^(package\.json|(licen[cs]e|notice|copying|copyright)([.-].*)?)$/i

const root = fileURLToPath(new URL('..', import.meta.url))
const [target] = process.argv.slice(2)
if (target === undefined) throw new Error('usage: image.ts DIR')
const bundle = join('.cache', 'bundle')
if (!existsSync(join(root, bundle, 'stamp')))
  throw new Error(`${bundle} is not there: run 'sh scripts/with-node.sh scripts/bundle.ts' first`)

/** A package as package-lock.json has it, by its folder below the root. */
interface Locked {
  readonly dev?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

const lock = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8'))
const packages: Readonly<Record<string, Locked>> = lock.packages

/** Where Node.js finds a package from another one: in its own node_modules, or in one above. */
function found(from: string, name: string): string | undefined {
  const folders = from
    .split('/node_modules/')
    .map((_, i, parts) => parts.slice(0, i + 1).join('/node_modules/'))
  const places = [
    ...folders.map((folder) => `${folder}/node_modules/${name}`).reverse(),
    `node_modules/${name}`,
  ]
  return places.find((place) => place in packages)
}

const whole = new Set<string>()

/** Notes a package with all that it needs. */
function need(folder: string | undefined): void {
  if (folder === undefined || whole.has(folder)) return
  whole.add(folder)
  const { dependencies, optionalDependencies } = packages[folder] ?? {}
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) need(found(folder, name))
}

async function take(path: string): Promise<void> {
  await mkdir(dirname(join(resolve(target ?? ''), path)), { recursive: true })
  await cp(join(root, path), join(resolve(target ?? ''), path), { recursive: true, preserveTimestamps: true })
}

for (const name of outside) need(found('', name))
for (const path of ['bin', 'package.json', bundle]) await take(path)
for (const [folder, { dev = false }] of Object.entries(packages)) {
  // Those of other platforms are not here; our own Node.js is the image's.
  if (folder === '' || dev || !existsSync(join(root, folder)) || basename(folder).startsWith('node-linux-'))
    continue
  if (whole.has(folder)) await take(folder)
  else
    for (const name of await readdir(join(root, folder))) if (told.test(name)) await take(join(folder, name))
}

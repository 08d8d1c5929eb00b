/**
 * Packs the program into a few files in .cache/bundle, for a quick start: loading a thousand small files costs a second
 * of processor time. bin/plasmavmc runs it while it is newer than the sources, and the sources otherwise. An argument
 * names another folder in .cache.
 */
import { mkdir, rename, rm, utimes, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = fileURLToPath(new URL('..', import.meta.url))
const target = join(root, '.cache', process.argv[2] ?? 'bundle')
const part = `${target}.part`
// As of the start: what changes while we pack must make the pack stale.
const began = new Date()

/**
 * Libraries of gRPC parse protocol files beside themselves at each start, which takes longer than to load them; in the
 * pack they are data. Each with the call that reads it, whose first group is the file, and what stands for that call.
 */
const protocols = [
  {
    of: '/etcd3/lib/connection-pool.js',
    call: /\.loadSync\)\(`\$\{__dirname\}(\/\.\.\/proto\/rpc\.proto)`,/,
    keepCase: true,
    instead: (json: string) => `.fromJSON)(${json},`,
  },
  ...['v1', 'v1alpha'].map((version) => ({
    of: `/@grpc/reflection/build/src/implementations/reflection-${version}.js`,
    call: /const protoPath = path\.join\(__dirname, '([^']+)'\);\s+const pkgDefinition = protoLoader\.loadSync\(protoPath,/,
    keepCase: false,
    instead: (json: string) => `const pkgDefinition = protoLoader.fromJSON(${json},`,
  })),
]

const packedProtocols = {
  name: 'packed-protocols',
  transform(code: string, id: string): string | undefined {
    const known = protocols.find(({ of }) => id.endsWith(of))
    if (!known) return undefined
    const [, file] = known.call.exec(code) ?? []
    if (file === undefined) throw new Error(`${id} reads its protocol in another way than this knows`)
    const loader = createRequire(id).resolve('@grpc/proto-loader')
    const protobuf = createRequire(loader)('protobufjs')
    const protocol = new protobuf.Root().loadSync(join(dirname(id), file), { keepCase: known.keepCase })
    const text = JSON.stringify(JSON.stringify(protocol.toJSON()))
    return code.replace(known.call, () => known.instead(`JSON.parse(${text})`))
  },
}

await rm(part, { recursive: true, force: true })
await mkdir(part, { recursive: true })

/** Packs one entry with what it loads; files of another entry are not shared, so that none brings more than it needs. */
async function pack(name: string, source: string): Promise<void> {
  const build = await rolldown({
    input: { [name]: join(root, 'src', source) },
    platform: 'node',
    // It loads native code from beside itself.
    external: ['lmdb'],
    plugins: [packedProtocols],
    logLevel: 'warn',
  })
  const names = { entryFileNames: '[name].js', chunkFileNames: `${name}-[name]-[hash].js` }
  await build.write({ dir: part, format: 'esm', ...names, minifyInternalExports: false })
  await build.close()
}

await pack('main', 'main.ts')
await pack('guard', 'wire-guard-entry.ts')
// The nearest package.json says that these are ES modules without node having to look into them.
await writeFile(join(part, 'package.json'), '{ "type": "module" }\n')
await writeFile(join(part, 'stamp'), `${began.toISOString()}\n`)
await utimes(join(part, 'stamp'), began, began)
await rm(target, { recursive: true, force: true })
await rename(part, target)

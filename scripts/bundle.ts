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

/** etcd3 parses protocol files beside itself at each start, which takes longer than to load it; in the pack they are data. */
const etcdProtocol = {
  name: 'etcd-protocol',
  transform(code: string, id: string): string | undefined {
    if (!id.endsWith('/etcd3/lib/connection-pool.js')) return undefined
    const call = /\.loadSync\)\(`\$\{__dirname\}\/\.\.\/proto\/rpc\.proto`,/
    if (!call.test(code)) throw new Error(`${id} reads its protocol in another way than this knows`)
    const loader = createRequire(id).resolve('@grpc/proto-loader')
    const protobuf = createRequire(loader)('protobufjs')
    const protocol = new protobuf.Root().loadSync(join(dirname(id), '../proto/rpc.proto'), { keepCase: true })
    const text = JSON.stringify(JSON.stringify(protocol.toJSON()))
    return code.replace(call, () => `.fromJSON)(JSON.parse(${text}),`)
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
    plugins: [etcdProtocol],
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

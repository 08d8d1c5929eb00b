import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

/** DESIGN section 3: imports point to a later row only, or stay in their own folder. */
const floors = [
  ['main', 'cli'],
  ['wire'],
  ['server', 'controllers'],
  ['auth', 'runtime', 'host'],
  ['store', 'qmp'],
  ['config', 'version', 'resources'],
  ['lib'],
]

/** Each is imported in one file of src. */
const singleFile = [
  ...['lmdb', 'etcd3', '@kubernetes/client-node', 'node:child_process', 'prom-client'],
  ...['@grpc/grpc-js', '@grpc/proto-loader', '@grpc/reflection'],
]
const longest = 400

interface Source {
  readonly file: string
  readonly lines: number
  readonly imports: readonly string[]
}

const importPattern = /(?:\bfrom\s*|\bimport\s*\(?\s*)'([^']+)'/g

function sources(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .map((name) => {
      const text = readFileSync(join(root, folder, name), 'utf8')
      const imports = [...text.matchAll(importPattern)].map((match) => match[1] as string)
      return { file: posix.join(folder, name), lines: text.split('\n').length - 1, imports }
    })
}

/** The room of a file of src: its top folder, or its own name where it lies directly in src. */
function roomOf(file: string): string {
  const name = (file.split('/')[1] ?? '').replace(/\.ts$/, '')
  if (name.startsWith('wire-')) return 'wire'
  // The drill and the simulator are one command each, too big for a file of cli.
  return name === 'drill' || name === 'sim' ? 'cli' : name
}

function floorOf(room: string): number {
  return floors.findIndex((rooms) => rooms.includes(room))
}

function allowed(from: string, to: string): boolean {
  return from === to || (from === 'main' && to === 'cli') || floorOf(from) < floorOf(to)
}

const src = sources('src')

describe('architecture', () => {
  it('knows every room', () => {
    expect(src.map(({ file }) => file).filter((file) => floorOf(roomOf(file)) < 0)).toEqual([])
  })

  it('lets imports point down only', () => {
    const wrong = src.flatMap(({ file, imports }) =>
      imports
        .filter((name) => name.startsWith('.'))
        .map((name) => posix.join(posix.dirname(file), name))
        .filter((target) => target.startsWith('src/'))
        .filter((target) => !allowed(roomOf(file), roomOf(target)))
        .map((target) => `${file} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('keeps concerns of controllers apart: they meet in stored objects only', () => {
    const concern = (file: string) => /^src\/controllers\/([^/]+)\//.exec(file)?.[1]
    const wrong = src.flatMap(({ file, imports }) =>
      imports
        .filter((name) => name.startsWith('.'))
        .map((name) => posix.join(posix.dirname(file), name))
        .filter((target) => concern(file) && concern(target) && concern(file) !== concern(target))
        .map((target) => `${file} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('never imports scripts or tests from src', () => {
    const outside = src.flatMap(({ file, imports }) =>
      imports
        .filter((name) => name.startsWith('.'))
        .filter((name) => !posix.join(posix.dirname(file), name).startsWith('src/'))
        // The package's own name and version are data, not code.
        .filter((name) => !name.endsWith('/package.json'))
        .map((name) => `${file} imports ${name}`),
    )
    expect(outside).toEqual([])
  })

  it.each(singleFile)('imports %s in at most one file', (name) => {
    const users = src.filter(({ imports }) => imports.includes(name)).map(({ file }) => file)
    expect(users.length, users.join(', ')).toBeLessThanOrEqual(1)
  })

  it('loads what speaks gRPC with the first connection, not with the server', () => {
    const room = 'src/server/grpc/'
    const users = src
      .filter(({ imports }) => imports.some((name) => /(^|\/)(grpc\/)?server\.ts$/.test(name)))
      .map(({ file }) => file)
      .filter((file) => file.startsWith(room))
    expect(users).toEqual([`${room}listen.ts`])
    const text = readFileSync(join(root, `${room}listen.ts`), 'utf8')
    const lines = text.split('\n').filter((line) => line.includes("'./server.ts'"))
    expect(lines.map((line) => line.trim().split(' ', 2).join(' ')).sort()).toEqual([
      'const {',
      'import type',
    ])
  })

  it('starts processes only in src/host', () => {
    const users = src.filter(({ imports }) => imports.includes('node:child_process'))
    expect(users.filter(({ file }) => !file.startsWith('src/host/'))).toEqual([])
  })

  it(`keeps files at ${longest} lines or fewer`, () => {
    const all = [...src, ...sources('test'), ...sources('scripts')]
    expect(all.filter(({ lines }) => lines > longest).map(({ file, lines }) => `${file}: ${lines}`)).toEqual(
      [],
    )
  })

  it('finds an arrow that points up', () => {
    expect(allowed('lib', 'resources')).toBe(false)
    expect(allowed('server', 'controllers')).toBe(false)
    expect(allowed('cli', 'wire')).toBe(true)
  })
})

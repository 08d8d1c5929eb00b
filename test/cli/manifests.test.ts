import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { maxManifestBytes, parseManifests, readManifests } from '../../src/cli/manifests.ts'

const vm = (name: string) => `apiVersion: v1\nkind: X\nmetadata: {name: ${name}}\n`
let dir = ''
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'pvmc-cli-'))
})
afterEach(() => rm(dir, { recursive: true }))

const io = (text = '') => ({ stdin: Readable.from([text]) as Readable & { isTTY?: boolean } })
const names = async (paths: string[], recursive = false, text = '') =>
  (await readManifests(paths, recursive, io(text))).map((s) => s.manifest.metadata.name)

test('several documents, empty ones, comments and Lists', async () => {
  const list = `apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: X, metadata: {name: c}}\n`
  const found = await parseManifests(
    `# only words\n---\n${vm('a')}---\n---\n${vm('b')}---\n${list}`,
    'f.yaml',
  )
  expect(found.map((s) => [s.manifest.metadata.name, s.at])).toEqual([
    ['a', 'f.yaml:3'],
    ['b', 'f.yaml:8'],
    ['c', 'f.yaml:15'],
  ])
})

test.each([
  ['unclosed quote in the second document', `${vm('a')}---\nkind: "x\n`, 'BadYaml', /^f\.yaml:\d+:\d+: /],
  ['wrong indentation', 'a:\n  b: 1\n c: 2\n', 'BadYaml', /^f\.yaml:3:\d+: /],
  ['the same key twice', 'apiVersion: v1\nkind: a\nkind: b\n', 'BadYaml', /^f\.yaml:3:1: /],
  ['a tab', 'a:\n\t- b\n', 'BadYaml', /^f\.yaml:2:\d+: /],
  ['no kind', 'apiVersion: v1\n', 'BadManifest', /f\.yaml:1: kind is not set/],
  ['no name', 'apiVersion: v1\nkind: X\nmetadata: {}\n', 'BadManifest', /metadata\.name is not set/],
  ['a scalar', 'hello\n', 'BadManifest', /no object/],
  [
    'a number for a name',
    'apiVersion: v1\nkind: X\nmetadata:\n  name: 7\n',
    'BadManifest',
    /^f\.yaml:4: metadata\.name must be a string, not 7/,
  ],
  ['a place in the text', 'a: [1\nb: 2\n', 'BadYaml', /\n {2}2 \| b: 2\n {4}\| \^/],
])('%s is refused with its place', async (_what, text, code, message) => {
  const error = await parseManifests(text, 'f.yaml').catch((e: unknown) => e)
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
})

test('aliases that multiply without end are refused', async () => {
  const levels = Array.from({ length: 9 }, (_, i) => `l${i + 1}: &l${i + 1} [${`*l${i},`.repeat(9)}]`).join(
    '\n',
  )
  const error = await parseManifests(`l0: &l0 [x]\n${levels}\n`, 'bomb.yaml').catch((e: unknown) => e)
  expect(error).toMatchObject({ code: 'BadYaml' })
})

test('folders in name order, those below with -R only, other files never', async () => {
  await mkdir(join(dir, 'sub'))
  await Promise.all([
    writeFile(join(dir, 'b.yaml'), vm('b')),
    writeFile(join(dir, 'a.json'), JSON.stringify({ apiVersion: 'v1', kind: 'X', metadata: { name: 'a' } })),
    writeFile(join(dir, 'note.txt'), 'not: [yaml'),
    writeFile(join(dir, 'sub', 'c.yml'), vm('c')),
  ])
  expect(await names([dir])).toEqual(['a', 'b'])
  expect(await names([dir], true)).toEqual(['a', 'b', 'c'])
  expect(await names(['-', join(dir, 'b.yaml')], false, vm('stdin'))).toEqual(['stdin', 'b'])
})

test('sizes are bounded, of files and of standard input', async () => {
  await writeFile(join(dir, 'big.yaml'), Buffer.alloc(maxManifestBytes + 1, '#'))
  await expect(names([join(dir, 'big.yaml')])).rejects.toMatchObject({ code: 'TooLarge' })
  await expect(names(['-'], false, '#'.repeat(maxManifestBytes + 1))).rejects.toMatchObject({
    code: 'TooLarge',
  })
})

test('missing files, empty folders and addresses say what to do', async () => {
  await expect(names([join(dir, 'none.yaml')])).rejects.toMatchObject({ code: 'Unreadable' })
  await expect(names([dir])).rejects.toMatchObject({ code: 'NoManifest' })
  await writeFile(join(dir, 'picture.yaml'), Buffer.from([0xff, 0xd8, 0xff]))
  await expect(names([join(dir, 'picture.yaml')])).rejects.toThrow(/picture\.yaml is no text in UTF-8/)
  await expect(names(['https://example.org/vm.yaml'])).rejects.toMatchObject({ code: 'Usage' })
})

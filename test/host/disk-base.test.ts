import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { machine, prepared, uid, workshop } from './disk-fixture.ts'

let shop: ReturnType<typeof workshop>
beforeEach(() => {
  shop = workshop()
})
afterEach(() => shop.end())

const image = () => join(shop.imageDir, 'base.qcow2')
const makeImage = (path: string, size: string) =>
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, size])

describe('the image that a disk stands on', () => {
  const vm = machine({ disks: [{ name: 'root', image: { source: 'base.qcow2' } }] })
  const seen = async () => (await shop.disks.observe(vm))[0]
  beforeEach(async () => {
    makeImage(image(), '4M')
    expect((await prepared(shop.disks, vm))[0]?.state).toBe('ready')
  })

  test('is gone: the disk has failed, and is ready once it is back', async () => {
    renameSync(image(), `${image()}.away`)
    expect((await seen())?.state).toBe('failed')
    expect((await prepared(shop.disks, vm))[0]?.message).toBe(
      `spec.disks[0]: the image ${image()}, on which the disk stands, is not there; bring it back`,
    )
    renameSync(`${image()}.away`, image())
    expect((await seen())?.state).toBe('ready')
  })

  test('is another now: the disk has failed, until the first is back', async () => {
    renameSync(image(), `${image()}.away`)
    makeImage(image(), '8M')
    expect((await seen())?.state).toBe('failed')
    const message = (await prepared(shop.disks, vm))[0]?.message
    expect(message).toContain('was changed since')
    renameSync(`${image()}.away`, image())
    expect((await seen())?.state).toBe('ready')
  })

  test('has the same content by the word of a person, as the message says it', async () => {
    const later = Date.now() / 1000 + 5
    utimesSync(image(), later, later)
    const command = /touch -d \S+ \S+(?=;)/.exec((await seen())?.message ?? '')?.[0].split(' ')
    execFileSync(command?.[0] ?? '', command?.slice(1))
    expect((await seen())?.state).toBe('ready')
  })

  test('is still known once the disk is declared without it', async () => {
    makeImage(image(), '8M')
    const bare = machine({ disks: [{ name: 'root', size: '4Mi' }] })
    expect((await shop.disks.observe(bare))[0]?.message).toContain('was changed since')
  })

  test('is taken as it is where an earlier version did not note it, but not where it is gone', async () => {
    const record = join(shop.dataDir, 'made', `${uid}.json`)
    const { bases, ...before } = JSON.parse(readFileSync(record, 'utf8'))
    expect(bases.root.path).toBe(image())
    writeFileSync(record, JSON.stringify(before))
    makeImage(image(), '8M')
    expect((await seen())?.state).toBe('ready')
    rmSync(image())
    expect((await seen())?.state).toBe('failed')
  })
})

test('a download that a disk stands on is had again where it is gone from the cache', async () => {
  makeImage(image(), '4M')
  const content = readFileSync(image())
  const server = createServer((_, answer) => answer.end(content)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const sha256 = createHash('sha256').update(content).digest('hex')
  const source = `http://127.0.0.1:${(server.address() as AddressInfo).port}/base`
  const vm = machine({ disks: [{ name: 'root', image: { source, sha256 } }] })
  await prepared(shop.disks, vm)
  const cached = join(shop.dataDir, 'images', 'cache', sha256)
  rmSync(cached)
  expect((await shop.disks.observe(vm))[0]?.state).toBe('absent')
  expect((await prepared(shop.disks, vm))[0]?.state).toBe('ready')
  expect(readFileSync(cached).equals(content)).toBe(true)
})

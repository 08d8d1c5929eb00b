import { createHash } from 'node:crypto'
import { symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Lab, tiny } from './lab.ts'

let lab: Lab
let images: Server

beforeAll(async () => {
  lab = await Lab.start()
  images = createServer((request, response) => {
    if (request.url === '/image') response.end('no image at all')
    else response.writeHead(404).end()
  })
  await new Promise<void>((done) => images.listen(0, '127.0.0.1', done))
})
afterAll(async () => {
  images.close()
  await lab.close()
})

const noSum = '0'.repeat(64)

function file(name: string, content: string | Buffer): string {
  const path = join(lab.dir, name)
  writeFileSync(path, content)
  return path
}

describe('a machine that can’t be made says which field is why', () => {
  const port = () => (images.address() as AddressInfo).port
  const url = (path: string) => `http://127.0.0.1:${port()}${path}`
  const image = (source: string, sha256?: string) => ({ disks: [{ name: 'a', image: { source, sha256 } }] })
  const forward = (hostPort: number) => ({
    networks: [{ name: 'n', user: { forwards: [{ hostPort, guestPort: 80 }] } }],
  })

  test.each<[string, () => Record<string, unknown>, RegExp]>([
    [
      'no kernel',
      () => ({ kernel: { image: 'none/vmlinuz' } }),
      /spec\.kernel\.image: .*none\/vmlinuz does not exist on this host/,
    ],
    ['no image', () => image('none.qcow2'), /spec\.disks\[0\]\.image\.source: .*none\.qcow2 does not exist/],
    [
      'an image outside',
      () => image('../../credentials'),
      /spec\.disks\[0\]\.image\.source: .* leads out of the image folder/,
    ],
    [
      'no such file on the server',
      () => image(url('/none'), noSum),
      /spec\.disks\[0\]\.image\.source: download of .* failed: the server answered 404/,
    ],
    [
      'no server',
      () => image('http://127.0.0.1:4/x', noSum),
      /spec\.disks\[0\]\.image\.source: download of .* failed/,
    ],
    [
      'a wrong sum',
      () => image(url('/image'), noSum),
      /spec\.disks\[0\]\.image\.sha256 says 0{64}, the image has [0-9a-f]{64}/,
    ],
    [
      'no such path',
      () => ({ disks: [{ name: 'a', path: '/none/x.raw' }] }),
      /spec\.disks\[0\]\.path: \/none\/x\.raw does not exist/,
    ],
    [
      'a size too large',
      () => ({ disks: [{ name: 'a', size: '900Ti' }] }),
      /spec\.disks\[0\]\.size: 900Ti is more than the .* free in pool default/,
    ],
    [
      'no such pool',
      () => ({ disks: [{ name: 'a', size: '1Mi', pool: 'none' }] }),
      /spec\.disks\[0\]\.pool: there is no StoragePool none/,
    ],
    [
      'an unwritable pool',
      () => ({ disks: [{ name: 'a', size: '1Mi', pool: 'unwritable' }] }),
      /spec\.disks\[0\]\.pool: pool unwritable \(.*\) can't be used/,
    ],
    [
      'a taken port',
      () => forward(port()),
      /spec\.networks\[0\]\.user\.forwards\[0\]\.hostPort: tcp port \d+ of 127\.0\.0\.1 is in use/,
    ],
    [
      'no such bridge',
      () => ({ networks: [{ name: 'n', bridge: { name: 'none0' } }] }),
      /spec\.networks\[0\]\.bridge\.name: this host has no bridge none0/,
    ],
    [
      'no such tap',
      () => ({ networks: [{ name: 'n', tap: { name: 'none0' } }] }),
      /spec\.networks\[0\]\.tap\.name: this host has no tap none0/,
    ],
    ['no such CPU', () => ({ cpu: { model: 'none' } }), /unable to find CPU model 'none'/],
    ['no such host', () => ({ hostSelector: { zone: 'none' } }), /spec\.hostSelector wants zone=none/],
  ])('%s', async (what, spec, message) => {
    const name = what.replace(/[^a-z]/gi, '-').toLowerCase()
    if (what === 'an unwritable pool') {
      const path = '/storagepools'
      const pool = {
        apiVersion: 'plasmavmc.io/v1alpha1',
        kind: 'StoragePool',
        metadata: { name: 'unwritable' },
      }
      const body = { ...pool, spec: { path: join(file('a-file', ''), 'pool') } }
      await lab.client.json('POST', `/apis/plasmavmc.io/v1alpha1${path}`, { body })
    }
    await lab.create(tiny(name, spec()))
    const vm = await lab.sees(name, `says ${message}`, ({ status }) => message.test(status?.message ?? ''))
    expect(vm.status?.conditions.find(({ type }) => type === 'Ready')).toMatchObject({
      status: 'False',
      message: expect.stringMatching(message),
    })
    expect(lab.qemus(vm.metadata.uid)).toEqual([])
    await lab.remove(name)
    await lab.gone(name)
  })

  test('two machines on one writable disk: the older one has it', async () => {
    const path = file('shared.raw', Buffer.alloc(1 << 20))
    const disks = [{ name: 'a', path, format: 'raw' }]
    await lab.create(tiny('first', { disks }))
    await lab.running('first')
    await lab.create(tiny('second', { disks }))
    const message = `spec.disks[0].path: ${path} is a writable disk of default/first too`
    await lab.sees('second', 'waits', ({ status }) => status?.message === message)
    // By another name only QEMU's own lock can tell.
    symlinkSync(path, join(lab.dir, 'link.raw'))
    await lab.create(tiny('third', { disks: [{ ...disks[0], path: join(lab.dir, 'link.raw') }] }))
    await lab.sees('third', 'ended', ({ status }) => /link\.raw/.test(status?.lastExit?.message ?? ''))
    expect(lab.qemus().length).toBe(1)
    for (const name of ['second', 'third', 'first']) await lab.remove(name)
    for (const name of ['second', 'third', 'first']) await lab.gone(name)
  })

  test('an image with the right sum is taken', async () => {
    const sha256 = createHash('sha256').update('no image at all').digest('hex')
    await lab.create(tiny('right', { ...image(url('/image'), sha256), runStrategy: 'Always' }))
    await lab.running('right')
    await lab.remove('right')
    await lab.gone('right')
  })
})

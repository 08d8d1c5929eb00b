import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { tapName } from '../../src/host/qemu-args.ts'
import { TapWatch } from '../../src/host/tap-watch.ts'
import { ensureTap, type RunIp, removeTap } from '../../src/host/taps.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { PlasmaError } from '../../src/lib/errors.ts'
import { machine, privileged } from './disk-fixture.ts'

const exec = promisify(execFile)
const space = `plasma-test-${process.pid}`

/** `ip` inside a network namespace of the test's own. */
const inside: RunIp = (args) =>
  exec('ip', ['-n', space, ...args]).catch((error: Error) => {
    throw new PlasmaError('CommandFailed', error.message)
  })
const links = async () => ((await inside(['-br', 'link'])) as { stdout: string }).stdout

describe.runIf(privileged)('in a real network namespace', () => {
  beforeAll(async () => {
    await exec('ip', ['netns', 'add', space])
    await inside(['link', 'add', 'br0', 'type', 'bridge'])
  })
  afterAll(() => exec('ip', ['netns', 'delete', space]))

  test('a tap is made on a bridge and deleted, both repeatably', async () => {
    await ensureTap('vm1', 'br0', inside)
    await ensureTap('vm1', 'br0', inside)
    expect(((await inside(['link', 'show', 'master', 'br0'])) as { stdout: string }).stdout).toContain('vm1')
    await removeTap('vm1', inside)
    await removeTap('vm1', inside)
    expect(await links()).not.toContain('vm1')
  })

  test('one that lost its bridge is found, and put back once there is one again', async () => {
    const uid = '0b1d6e00-0000-4000-8000-00000000b41d'
    const tap = tapName(uid, 'lan')
    await inside(['link', 'add', 'br1', 'type', 'bridge'])
    await ensureTap(tap, 'br1', inside)
    const lan = machine({ networks: [{ name: 'lan', bridge: { name: 'br1' } }] }, uid)
    expect(await new TapWatch(systemClock, inside).loose(lan)).toEqual([])
    await inside(['link', 'delete', 'br1'])
    const gone = new TapWatch(systemClock, inside)
    expect(await gone.loose(lan)).toMatchObject([{ tap, message: expect.stringContaining('no bridge br1') }])
    await inside(['link', 'add', 'br1', 'type', 'bridge'])
    expect(await gone.loose(lan)).toMatchObject([{ tap, attach: 'br1' }])
    await gone.attach(tap, 'br1')
    expect(await gone.loose(lan)).toEqual([])
    await removeTap(tap, inside)
    const afresh = new TapWatch(systemClock, inside)
    expect(await afresh.loose(lan)).toMatchObject([{ tap, message: expect.stringContaining('is gone') }])
  })

  test('a missing bridge is named, and what is no tap is left alone', async () => {
    await expect(ensureTap('vm1', 'br9', inside)).rejects.toThrow('this host has no bridge br9')
    await inside(['link', 'add', 'dummy1', 'type', 'bridge'])
    await expect(ensureTap('dummy1', 'br0', inside)).rejects.toThrow('exists and is no tap')
    await removeTap('dummy1', inside)
    expect(await links()).toContain('dummy1')
  })
})

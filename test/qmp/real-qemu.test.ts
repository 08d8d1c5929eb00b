import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import type { PlasmaError } from '../../src/lib/errors.ts'
import { connectQmp } from '../../src/qmp/connect.ts'
import { CommandError, ConnectError, Interrupted } from '../../src/qmp/errors.ts'
import { QmpSession } from '../../src/qmp/session.ts'

const deadlineMs = 20_000
const clock = systemClock

let folder: string
let path: string
let qemu: ChildProcess
let exited: Promise<unknown>

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pv-qmp-'))
  path = join(folder, 'qmp.sock')
  const args = ['-S', '-nodefaults', '-display', 'none', '-qmp', `unix:${path},server=on,wait=off`]
  qemu = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'ignore', 'inherit'] })
  exited = once(qemu, 'exit')
})

afterEach(async () => {
  qemu.kill('SIGKILL')
  await exited
  rmSync(folder, { recursive: true, force: true })
})

const dial = () => connectQmp(path, { clock, waitMs: deadlineMs, handshakeMs: deadlineMs })

/** A server of disks that accepts and says nothing: QEMU's main loop hangs on it. */
async function silentNbd(): Promise<{ server: Server; path: string; connected: Promise<Socket> }> {
  const connected = Promise.withResolvers<Socket>()
  const socket = join(folder, 'nbd.sock')
  const server = createServer(connected.resolve).listen(socket)
  await once(server, 'listening')
  return { server, path: socket, connected: connected.promise }
}

const nbdNode = (at: string) =>
  ({ driver: 'nbd', 'node-name': 'far', server: { type: 'unix', path: at } }) as const

describe('a real QEMU', () => {
  it('greets, and goes from prelaunch to running to paused, with an event for each', async () => {
    const session = await dial()
    expect(session.oob).toBe(true)
    expect(session.version).toEqual(await session.execute('query-version'))
    expect(await session.execute('query-status')).toEqual({ running: false, status: 'prelaunch' })
    await using events = session.events(['RESUME', 'STOP', 'RESET'])
    await session.execute('cont')
    expect((await events.next()).value?.event).toBe('RESUME')
    expect(await session.execute('query-status')).toEqual({ running: true, status: 'running' })
    await session.execute('system_reset')
    const reset = (await events.next()).value
    expect(reset).toMatchObject({ event: 'RESET', data: { guest: false, reason: 'host-qmp-system-reset' } })
    await session.execute('stop')
    expect((await events.next()).value?.event).toBe('STOP')
    expect(await session.execute('query-status')).toEqual({ running: false, status: 'paused' })
  })

  it('answers every question of the table as the table has it', async () => {
    const session = await dial()
    expect(await session.execute('query-name')).toEqual({})
    expect(await session.execute('query-kvm')).toHaveProperty('enabled')
    expect(await session.execute('query-block')).toEqual([])
    expect(await session.execute('query-chardev')).toMatchObject([{ 'frontend-open': true }])
    expect(await session.execute('query-cpus-fast')).toMatchObject([{ 'cpu-index': 0 }])
    expect(await session.execute('query-jobs')).toEqual([])
    expect(await session.execute('query-migrate')).toEqual({})
    expect(await session.execute('query-migrate-capabilities')).toContainEqual({
      capability: 'events',
      state: false,
    })
    expect(await session.execute('qom-get', { path: '/machine', property: 'type' })).toMatch(/-machine$/)
    expect(await session.execute('qom-list', { path: '/objects' })).toContainEqual(
      expect.objectContaining({ name: 'type' }),
    )
    expect(await session.execute('human-monitor-command', { 'command-line': 'info status' })).toContain('VM')
    expect((await session.execute('query-qmp-schema')).length).toBeGreaterThan(500)
  })

  it('adds, refuses and removes what it is told to', async () => {
    const session = await dial()
    await session.execute('object-add', { 'qom-type': 'iothread', id: 'io0' })
    await session.execute('netdev_add', { type: 'user', id: 'net0', hostfwd: [] })
    await session.execute('device_add', { driver: 'virtio-net-pci', id: 'nic0', netdev: 'net0' })
    const again = session.execute('object-add', { 'qom-type': 'iothread', id: 'io0' })
    await expect(again).rejects.toBeInstanceOf(CommandError)
    await expect(again).rejects.toMatchObject({ class: 'GenericError', command: 'object-add' })
    await session.execute('object-del', { id: 'io0' })
    await session.execute('set-action', { panic: 'pause', shutdown: 'pause' })
    await expect(session.execute('query-balloon')).rejects.toMatchObject({ class: 'DeviceNotActive' })
  })

  it('says why it shuts down, and closes the connection', async () => {
    const session = await dial()
    const events = session.events(['SHUTDOWN'])
    // QEMU may or may not still answer quit; either way it was obeyed.
    const outcome = await session.execute('quit').catch((error: unknown) => error)
    if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'Interrupted' })
    const shutdown = (await events.next()).value
    expect(shutdown).toMatchObject({ event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } })
    expect((await session.closed).error).toBeInstanceOf(Interrupted)
    await expect(session.execute('query-status')).rejects.toMatchObject({ code: 'Closed' })
    await exited
    await expect(connectQmp(path, { clock, waitMs: 0, handshakeMs: deadlineMs })).rejects.toBeInstanceOf(
      ConnectError,
    )
  })

  it('answers out of band while its main loop hangs', async () => {
    const session = await dial()
    const nbd = await silentNbd()
    try {
      const order: string[] = []
      const added = session
        .execute('blockdev-add', nbdNode(nbd.path))
        .finally(() => order.push('blockdev-add'))
      added.catch(() => {})
      const disk = await nbd.connected
      const hung = session.execute('query-status').finally(() => order.push('query-status'))
      hung.catch(() => {})
      const stuck = await session.execute('query-yank')
      order.push('query-yank')
      expect(stuck).toContainEqual(expect.objectContaining({ type: 'block-node', 'node-name': 'far' }))
      await session.execute('yank', { instances: [{ type: 'block-node', 'node-name': 'far' }] })
      order.push('yank')
      disk.destroy()
      await expect(added).rejects.toBeInstanceOf(CommandError)
      expect(await hung).toMatchObject({ status: 'prelaunch' })
      expect(order).toEqual(['query-yank', 'yank', 'blockdev-add', 'query-status'])
    } finally {
      nbd.server.close()
    }
  })

  it('interrupts what waits when it is killed', async () => {
    const session = await dial()
    const nbd = await silentNbd()
    try {
      const added = session.execute('blockdev-add', nbdNode(nbd.path))
      added.catch(() => {})
      await nbd.connected
      qemu.kill('SIGKILL')
      await expect(added).rejects.toMatchObject({ code: 'Interrupted', message: /^blockdev-add: / })
    } finally {
      nbd.server.close()
    }
  })

  it('answers an earlier client to the next one, which is not fooled', async () => {
    const earlier = await dial()
    const nbd = await silentNbd()
    try {
      earlier.execute('blockdev-add', nbdNode(nbd.path)).catch(() => {})
      const disk = await nbd.connected
      earlier.close()
      const socket = connect(path)
      let heard = ''
      const opening = QmpSession.open(socket, { clock, deadlineMs, tag: 'later' })
      socket.on('data', (chunk) => {
        heard += chunk
      })
      await once(socket, 'data')
      disk.destroy()
      const later = await opening
      expect(await later.execute('query-status')).toMatchObject({ status: 'prelaunch' })
      expect(heard).toMatch(/"id": "[0-9a-f]+-2", "error"/)
    } finally {
      nbd.server.close()
    }
  })

  it('is silent, and then accepts nobody, while it is stopped by a signal', async () => {
    const first = await dial()
    first.close()
    qemu.kill('SIGSTOP')
    const codes = new Set<string>()
    // The backlog takes a few; before that the signal may not have taken hold yet.
    for (let i = 0; i < 20 && !codes.has('busy'); i += 1) {
      const silent = connectQmp(path, { clock, waitMs: 0, handshakeMs: 100 })
      await silent.then(
        (session) => session.close(),
        (error: unknown) => codes.add((error as PlasmaError).code),
      )
    }
    expect(codes).toEqual(new Set(['QmpTimeout', 'busy']))
    qemu.kill('SIGCONT')
    const back = await dial()
    expect(await back.execute('query-status')).toMatchObject({ status: 'prelaunch' })
  })

  it('is told nothing that would end the session', async () => {
    const session = await dial()
    await expect(session.execute('device_del', { id: 'a\ud800' })).rejects.toMatchObject({ code: 'BadText' })
    await expect(session.execute('device_del', { id: 'ä€😀\u0000"\\' })).rejects.toMatchObject({
      class: 'DeviceNotFound',
    })
    expect(session.state).toBe('running')
  })
})

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { sleep, systemClock } from '../../src/lib/clock.ts'
import { connectQmp } from '../../src/qmp/connect.ts'
import type { QmpSession } from '../../src/qmp/session.ts'
import { folder, image, key, run } from './image.ts'

/** Emulated, on two busy cores: a boot takes one to four minutes, and may take longer. */
const bootMs = 900_000
/** For what is typed in the guest, ms. */
const commandMs = 600_000
const [user, port] = ['root@127.0.0.1', '2229']

export interface Answer {
  readonly code: number | null
  readonly text: string
}

/**
 * A host under emulation, with systemd and a hardware watchdog that resets it. Its clock is that of the instructions it
 * has executed (-icount): however slow this machine is, a second there is that of a fast one, so that no deadline in it
 * passes for want of speed.
 */
export class Guest {
  readonly #qemu: ChildProcess
  readonly #qmp: QmpSession
  readonly #watchdogs: AsyncIterator<unknown>

  private constructor(qemu: ChildProcess, qmp: QmpSession) {
    this.#qemu = qemu
    this.#qmp = qmp
    this.#watchdogs = qmp.events(['WATCHDOG'])[Symbol.asyncIterator]()
  }

  /** @throws Error where it does not come up */
  static async start(): Promise<Guest> {
    const [disk, qmp] = [join(folder, 'guest.qcow2'), join(folder, 'qmp.sock')]
    await run('overlay', 'qemu-img', ['create', '-q', '-f', 'qcow2', '-b', image, '-F', 'raw', disk])
    const append = 'root=/dev/vda rw console=ttyS0 quiet systemd.hostname=host mitigations=off tsc=reliable'
    const qemu = spawn(
      'qemu-system-x86_64',
      [
        ...['-machine', 'pc', '-accel', 'tcg', '-cpu', 'Nehalem', '-smp', '1', '-m', '1400'],
        ...['-icount', 'shift=0,sleep=on', '-rtc', 'clock=vm', '-display', 'none'],
        ...['-kernel', join(folder, 'vmlinuz'), '-initrd', join(folder, 'initrd.img'), '-append', append],
        ...['-drive', `file=${disk},if=virtio,cache=unsafe`],
        ...['-netdev', `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:22`],
        ...['-device', 'virtio-net-pci,netdev=net', '-device', 'i6300esb', '-action', 'watchdog=reset'],
        ...['-serial', `file:${join(folder, 'serial.log')}`, '-qmp', `unix:${qmp},server=on,wait=off`],
      ],
      { stdio: 'inherit' },
    )
    const session = await connectQmp(qmp, { clock: systemClock, waitMs: 30_000, handshakeMs: 30_000 })
    const guest = new Guest(qemu, session)
    await guest.booted('')
    return guest
  }

  /** Runs a script in the guest's shell. Never rejects for what it answers. */
  async sh(script: string, ms = commandMs): Promise<Answer> {
    const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'ConnectTimeout=60']
    const flags = options.flatMap((option) => ['-o', option])
    const child = spawn('ssh', ['-q', '-i', key, ...flags, '-p', port, user, 'bash -s'], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    let text = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (more: string) => {
        text = (text + more).slice(-8_000)
      })
    child.stdin.on('error', () => {})
    child.stdin.end(script)
    const timer = setTimeout(() => child.kill('SIGKILL'), ms)
    const [code] = (await once(child, 'close')) as [number | null]
    clearTimeout(timer)
    return { code, text: text.trim() }
  }

  /** The id of its boot, where it can be asked. */
  async bootId(): Promise<string | undefined> {
    const { code, text } = await this.sh('cat /proc/sys/kernel/random/boot_id', 180_000)
    return code === 0 ? text : undefined
  }

  /** Waits until it has booted, after the boot of that id. @throws Error where it does not */
  async booted(before: string): Promise<void> {
    const end = systemClock.elapsed() + bootMs
    while (systemClock.elapsed() < end) {
      const id = await this.bootId()
      if (id !== undefined && id !== before) return
      await sleep(systemClock, 2_000)
    }
    throw new Error(`it did not boot within ${bootMs / 1_000} s: see ${join(folder, 'serial.log')}`)
  }

  /** Waits until the hardware watchdog bites. @throws Error where it does not */
  async bitten(ms: number): Promise<void> {
    const late = AbortSignal.timeout(ms)
    const missed = once(late, 'abort').then(() => {
      throw new Error(`the watchdog did not bite within ${ms / 1_000} s`)
    })
    await Promise.race([this.#watchdogs.next(), missed])
  }

  close(): void {
    this.#qmp.close()
    this.#qemu.kill('SIGKILL')
  }
}

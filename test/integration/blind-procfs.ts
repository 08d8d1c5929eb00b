import { type ProcessStat, Procfs, type Read } from '../../src/host/procfs.ts'

/** The real /proc, of which entries can't be read for a while, or which is of another boot. */
export class BlindProcfs extends Procfs {
  blind = false
  readonly #boot: string | undefined

  constructor(boot?: string) {
    super()
    this.#boot = boot
  }

  override bootId(): string {
    return this.#boot ?? super.bootId()
  }

  override stat(pid: number): Read<ProcessStat> {
    return this.blind ? { state: 'unreadable', why: 'EACCES' } : super.stat(pid)
  }

  override cmdline(pid: number): Read<string[]> {
    return this.blind ? { state: 'unreadable', why: 'EACCES' } : super.cmdline(pid)
  }
}

import { access, constants, stat } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { delimiter, isAbsolute, join, resolve } from 'node:path'
import { adviceOf, PlasmaError } from '../lib/errors.ts'
import { run } from './exec.ts'
import { Procfs } from './procfs.ts'

/** The oldest QEMU whose options and QMP we use (`-action`, JSON blockdev, run states). */
export const oldestQemu = '7.0'

export interface HostFacts {
  readonly cpus: number
  readonly memoryBytes: number
  readonly bootId: string
  /** Undefined where QEMU is missing or too old; `qemuProblem` says why. */
  readonly qemuVersion?: string
  readonly qemuProblem?: string
}

/** `7.2.22` of the first line that `qemu-system-… --version` prints; undefined where it is another program. */
export function parseQemuVersion(output: string): string | undefined {
  return /^QEMU emulator version (\d+\.\d+(?:\.\d+)?)/m.exec(output)?.[1]
}

/** Whether a version is at least another; both are dotted numbers. */
export function isAtLeast(version: string, oldest: string): boolean {
  const [a, b] = [version, oldest].map((text) => text.split('.').map(Number))
  for (let i = 0; i < 3; i++) {
    const difference = (a?.[i] ?? 0) - (b?.[i] ?? 0)
    if (difference !== 0) return difference > 0
  }
  return true
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK)
    return (await stat(path)).isFile()
  } catch {
    return false
  }
}

/** The file a command name stands for on PATH; a name with a slash is a file of its own. Undefined where there is none. */
export async function findProgram(
  name: string,
  path = process.env['PATH'] ?? '',
): Promise<string | undefined> {
  const folders = path.split(delimiter).filter(isAbsolute)
  const candidates = name.includes('/') ? [resolve(name)] : folders.map((folder) => join(folder, name))
  for (const candidate of candidates) if (await isProgram(candidate)) return candidate
  return undefined
}

const missingHint = 'install QEMU (Debian: apt install qemu-system-x86; Fedora: dnf install qemu-kvm)'

/** Asks a QEMU for its version once for every change of the binary. */
export class QemuBinary {
  readonly #name: string
  #known: { readonly path: string; readonly mtimeMs: number; readonly version: string } | undefined

  constructor(name = 'qemu-system-x86_64') {
    this.#name = name
  }

  /**
   * Where it is and which version.
   * @throws PlasmaError `QemuMissing`, `QemuTooOld`, each with a hint
   */
  async find(): Promise<{ readonly path: string; readonly version: string }> {
    const path = await findProgram(this.#name)
    if (path === undefined) {
      const what = this.#name.includes('/') ? 'is no file that can be executed' : 'is not installed'
      throw new PlasmaError('QemuMissing', `${this.#name} ${what}`, { hint: missingHint })
    }
    const { mtimeMs } = await stat(path)
    if (this.#known?.path !== path || this.#known.mtimeMs !== mtimeMs) {
      this.#known = { path, mtimeMs, version: await this.#ask(path) }
    }
    return this.#known
  }

  async #ask(path: string): Promise<string> {
    const { stdout } = await run(path, ['--version'], { timeoutMs: 20_000 })
    const version = parseQemuVersion(stdout)
    if (version === undefined) {
      throw new PlasmaError('QemuMissing', `${path} is no QEMU: it names no version`, { hint: missingHint })
    }
    if (!isAtLeast(version, oldestQemu)) {
      throw new PlasmaError('QemuTooOld', `${path} is QEMU ${version}; ${oldestQemu} or newer is needed`, {
        hint: 'upgrade QEMU; running machines are not touched by that',
      })
    }
    return version
  }
}

/** What this host is, for its Host object. Never rejects for want of QEMU. */
export async function hostFacts(qemu: QemuBinary, proc = new Procfs()): Promise<HostFacts> {
  const facts = { cpus: availableParallelism(), memoryBytes: totalmem(), bootId: proc.bootId() }
  try {
    return { ...facts, qemuVersion: (await qemu.find()).version }
  } catch (error) {
    return { ...facts, qemuProblem: adviceOf(error) }
  }
}

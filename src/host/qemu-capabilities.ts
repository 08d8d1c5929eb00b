import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { makeWhole } from './durable-files.ts'
import { run } from './exec.ts'

/** How QEMU's names for what a migration can do (qapi/migration.json) are told in a Host. */
const names: Readonly<Record<string, string>> = {
  'postcopy-ram': 'postcopy',
  multifd: 'multifd',
  'auto-converge': 'auto-converge',
  'dirty-bitmaps': 'dirty-bitmaps',
  'zero-copy-send': 'zero-copy',
  'background-snapshot': 'background-snapshot',
}

const kept = z.object({ key: z.string(), capabilities: z.array(z.string()) })
const answer = z.object({ return: z.array(z.object({ capability: z.string() })) })
const done = z.object({ return: z.unknown(), id: z.string() })

const timeoutMs = 20_000

/** Without a guest, and as the receiving side: only there QEMU looks whether the kernel has what postcopy needs. */
const argv = '-machine none -nodefaults -display none -S -incoming defer -qmp stdio'.split(' ')

function questions(): string {
  const set = (capability: string) => ({
    execute: 'migrate-set-capabilities',
    arguments: { capabilities: [{ capability, state: true }] },
    id: capability,
  })
  const off = (capability: string) => ({
    execute: 'migrate-set-capabilities',
    arguments: { capabilities: [{ capability, state: false }] },
  })
  const each = Object.keys(names).flatMap((name) => [set(name), off(name)])
  const all = [
    { execute: 'qmp_capabilities' },
    { execute: 'query-migrate-capabilities' },
    ...each,
    { execute: 'quit' },
  ]
  return all.map((question) => `${JSON.stringify(question)}\n`).join('')
}

function json(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

/** What QEMU's answers to our questions say it can do, sorted; without an answer about migration, nothing. */
export function capabilitiesOf(output: string): string[] {
  const lines = output.split('\n').map(json)
  if (!lines.some((line) => answer.safeParse(line).success)) return []
  const able = lines.flatMap((line) => {
    const { success, data } = done.safeParse(line)
    const name = success ? names[data.id] : undefined
    return name === undefined ? [] : [name]
  })
  return ['live-migration', ...able].sort()
}

/** Asks a QEMU what it can do on this host, once for every change of the binary and of the kernel's boot. */
export class QemuCapabilities {
  readonly #file: string
  readonly #bootId: string
  #known: z.output<typeof kept> | undefined

  constructor(options: { readonly cacheDir: string; readonly bootId: string }) {
    this.#file = join(options.cacheDir, 'qemu-capabilities.json')
    this.#bootId = options.bootId
  }

  /** @throws PlasmaError where that QEMU does not answer; asked again at the next call */
  async find(path: string): Promise<readonly string[]> {
    const { mtimeMs, size, ino } = await stat(path)
    const key = [this.#bootId, path, mtimeMs, size, ino].join(' ')
    this.#known ??= await this.#read()
    if (this.#known?.key === key) return this.#known.capabilities
    const { stdout } = await run(path, argv, { timeoutMs, input: questions() })
    this.#known = { key, capabilities: capabilitiesOf(stdout) }
    const text = JSON.stringify(this.#known)
    // Where it can't be kept it is asked again after the next start.
    await makeWhole(this.#file, (part) => writeFile(part, text, { mode: 0o600 })).catch(() => {})
    return this.#known.capabilities
  }

  async #read(): Promise<z.output<typeof kept> | undefined> {
    try {
      return kept.parse(JSON.parse(await readFile(this.#file, 'utf8')))
    } catch {
      return undefined
    }
  }
}

import { parseOptionList } from '../../../src/host/qemu-options.ts'

/** Options of QEMU's that take no value, as far as we or the tests use them (qemu(1)). */
const flags: ReadonlySet<string> = new Set(['S', 'nodefaults', 'no-user-config', 'no-reboot', 'no-shutdown'])

/** A command line as QEMU reads it: every option with its values, in order; `--x` is `-x`. */
export class Options {
  readonly #values = new Map<string, string[]>()

  /** @throws Error with QEMU's words where an option lacks its value */
  constructor(args: readonly string[]) {
    for (let i = 0; i < args.length; i++) {
      const name = (args[i] ?? '').replace(/^--?/, '')
      const value = flags.has(name) ? '' : args[++i]
      if (value === undefined) throw new Error(`-${name}: requires an argument`)
      this.#values.set(name, [...(this.#values.get(name) ?? []), value])
    }
  }

  has(name: string): boolean {
    return this.#values.has(name)
  }

  first(name: string): string | undefined {
    return this.#values.get(name)?.[0]
  }

  /** The members of each use of an option; a first member without `=` gets the key `implied`. */
  lists(name: string, implied: string): readonly ReadonlyMap<string, string>[] {
    return (this.#values.get(name) ?? []).map((text) =>
      text.startsWith('{')
        ? new Map(Object.entries(JSON.parse(text) as Record<string, unknown>).map(([k, v]) => [k, String(v)]))
        : parseOptionList(text, implied),
    )
  }

  /** The socket path of a chardev by its id. */
  socketOf(id: string): string | undefined {
    return this.lists('chardev', 'backend')
      .find((members) => members.get('id') === id && members.get('backend') === 'socket')
      ?.get('path')
  }
}

import type { VirtualMachine } from '../../resources/vm.ts'
import { keyOf } from '../../runtime/informer.ts'

interface Written {
  /** As the copy of the store shows it. */
  readonly base: VirtualMachine
  readonly next: VirtualMachine
  /** Whether the store has answered. */
  readonly settled: boolean
}

/**
 * What this leader has written or may have written, until its copy of the store shows it. Without it the next pass would
 * give away again what the last one gave.
 */
export class Assumed {
  readonly #written = new Map<string, Written>()

  /** `next` was sent for `base`. Until `settled` it is to be sent again as it was: `base`'s version lets in one of both. */
  note(base: VirtualMachine, next: VirtualMachine, settled: boolean): void {
    this.#written.set(keyOf(base), { base, next, settled })
  }

  drop(base: VirtualMachine): void {
    this.#written.delete(keyOf(base))
  }

  /** Machines as they will be seen to be; forgets what the copy shows, or shows otherwise. */
  over(machines: readonly VirtualMachine[]): readonly VirtualMachine[] {
    if (this.#written.size === 0) return machines
    const open = new Set<string>()
    const current = machines.map((vm) => {
      const key = keyOf(vm)
      const one = this.#written.get(key)
      if (!one || !isSame(one.base, vm)) return vm
      open.add(key)
      return one.next
    })
    for (const key of this.#written.keys()) if (!open.has(key)) this.#written.delete(key)
    return current
  }

  /** Writes of which it is not known whether they were made. */
  get unsettled(): readonly Written[] {
    return [...this.#written.values()].filter(({ settled }) => !settled)
  }
}

function isSame(a: VirtualMachine, b: VirtualMachine): boolean {
  return a.metadata.resourceVersion === b.metadata.resourceVersion && a.metadata.uid === b.metadata.uid
}

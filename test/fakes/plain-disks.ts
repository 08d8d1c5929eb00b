import type { DiskState, Disks } from '../../src/host/ports.ts'
import type { VirtualMachine } from '../../src/resources/vm.ts'

/** Disks without files: ready at once unless a test says otherwise. */
export class PlainDisks implements Disks {
  /** What every disk of the spec is said to be. */
  state: DiskState['state'] = 'ready'
  /** What stands for making them: nothing unless a test says otherwise. */
  onPrepare: () => void = () => {}
  readonly removed: string[] = []
  readonly #listeners = new Set<(uid: string) => void>()

  async observe(vm: VirtualMachine): Promise<readonly DiskState[]> {
    const { state } = this
    const failed = state === 'failed' && { message: 'no space left' }
    return vm.spec.disks.map(({ name, path = `/no/disks/${name}.qcow2` }) => ({
      ...{ name, state },
      ...(state === 'ready' && { path }),
      ...failed,
    }))
  }

  prepare(): void {
    this.onPrepare()
  }

  async checkGrowth(): Promise<void> {}

  /** Sets the state and tells of it. */
  become(state: DiskState['state'], uid: string): void {
    this.state = state
    for (const listener of this.#listeners) listener(uid)
  }

  async remove(vm: VirtualMachine): Promise<void> {
    this.removed.push(vm.metadata.uid ?? '')
  }

  onChange(listener: (uid: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {}
}

import type { VirtualMachine } from '../../resources/vm.ts'

export type Labels = Readonly<Record<string, string>>

/** A machine and the name of the host it is on, or decided to be on. */
export interface Resident {
  readonly vm: VirtualMachine
  readonly host: string
}

export type ApartTerm = VirtualMachine['spec']['affinity']['apart'][number]

/** One that keeps apart from others, by this term. */
export interface Shy extends Resident {
  readonly term: ApartTerm
}

/** Whether `vm` has all of the labels. */
export function hasLabels(vm: VirtualMachine, labels: Labels): boolean {
  const own = vm.metadata.labels
  if (!own) return false
  for (const key in labels) if (!Object.hasOwn(own, key) || own[key] !== labels[key]) return false
  return true
}

const bucketOf = ({ metadata }: VirtualMachine, key: string, value: string) =>
  `${metadata.namespace}/${key}=${value}`

function put<T>(buckets: Map<string, T[]>, bucket: string, item: T): void {
  const items = buckets.get(bucket)
  if (items) items.push(item)
  else buckets.set(bucket, [item])
}

/**
 * All machines that have a host, found by what selectors ask for: with thousands of them nobody could look at each for
 * every choice. Found in the order they were added.
 */
export class Residents {
  readonly #byLabel = new Map<string, Resident[]>()
  /** Under one of the labels that the term asks for. */
  readonly #shy = new Map<string, Shy[]>()

  add(vm: VirtualMachine, host: string): void {
    for (const [key, value] of Object.entries(vm.metadata.labels ?? {}))
      put(this.#byLabel, bucketOf(vm, key, value), { vm, host })
    for (const term of vm.spec.affinity.apart) {
      const [first] = Object.entries(term.labels)
      if (first) put(this.#shy, bucketOf(vm, ...first), { vm, host, term })
    }
  }

  /** Those that a selector of `vm` means: other machines of its namespace with all of the labels. */
  meant(vm: VirtualMachine, labels: Labels): readonly Resident[] {
    let fewest: readonly Resident[] | undefined
    for (const [key, value] of Object.entries(labels)) {
      const bucket = this.#byLabel.get(bucketOf(vm, key, value)) ?? []
      if (!fewest || bucket.length < fewest.length) fewest = bucket
    }
    return (fewest ?? []).filter(
      (one) => one.vm.metadata.uid !== vm.metadata.uid && hasLabels(one.vm, labels),
    )
  }

  /** Those whose `affinity.apart` means `vm`, once for each such term. */
  shyOf(vm: VirtualMachine): readonly Shy[] {
    return Object.entries(vm.metadata.labels ?? {}).flatMap(([key, value]) =>
      (this.#shy.get(bucketOf(vm, key, value)) ?? []).filter(
        (one) => one.vm.metadata.uid !== vm.metadata.uid && hasLabels(vm, one.term.labels),
      ),
    )
  }
}

import type { VirtualMachine } from '../../resources/vm.ts'
import type { Informer } from '../../runtime/informer.ts'

/** Who is on a host. */
export interface Company {
  readonly all: () => Iterable<VirtualMachine>
  /** Those who keep apart from others: of thousands, nobody else keeps one away that asks for nobody itself. */
  readonly shy: () => Iterable<VirtualMachine>
}

/** Those on a host by a copy of all machines. Make it before the informer runs. */
export function companyOn(
  hostName: string,
  vms: Pick<Informer<VirtualMachine>, 'list' | 'onChange'>,
): Company {
  const isHere = (vm: VirtualMachine) => vm.status?.hostName === hostName
  const shy = new Map<string, VirtualMachine>()
  vms.onChange((key, vm) => {
    if (vm && isHere(vm) && vm.spec.affinity.apart.length > 0) shy.set(key, vm)
    else shy.delete(key)
  })
  return { all: () => vms.list().filter(isHere), shy: () => shy.values() }
}

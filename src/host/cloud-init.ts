import type { VirtualMachine } from '../resources/vm.ts'
import { type IsoFile, isoImage } from './iso9660.ts'

/**
 * The NoCloud seed of a machine: a volume labelled `cidata` with user-data, meta-data and, where given,
 * network-config (cloud-init documentation, "NoCloud"). `instance-id` is the uid, so that a machine made anew runs its
 * first-boot steps again.
 */
export function seedImage(vm: VirtualMachine): Buffer {
  const { userData, metaData, networkConfig } = vm.spec.cloudInit ?? {}
  const { uid = '', name } = vm.metadata
  const file = (fileName: string, text: string): IsoFile => ({ name: fileName, content: Buffer.from(text) })
  return isoImage('cidata', [
    file('user-data', userData ?? '#cloud-config\n'),
    file('meta-data', metaData ?? `instance-id: ${uid}\nlocal-hostname: ${name}\n`),
    ...(networkConfig === undefined ? [] : [file('network-config', networkConfig)]),
  ])
}

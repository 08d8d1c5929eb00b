import type { VirtualMachine } from './vm.ts'

/**
 * Annotation of a machine that was made for a QEMU which ran already: the name of that QEMU's host. It is there from the
 * moment the object is, so that nobody gives the machine another host before its own has taken it up.
 */
export const adoptedFrom = 'plasmavmc.io/adopted-from'

/** The host that takes an adopted machine up; undefined for others, and once it has had a host. */
export function homeOf({ metadata, status }: VirtualMachine): string | undefined {
  const placed = status?.hostName !== undefined || status?.disksHost !== undefined
  return placed ? undefined : metadata.annotations?.[adoptedFrom]
}

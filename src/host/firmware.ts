import { access, stat } from 'node:fs/promises'
import { PlasmaError } from '../lib/errors.ts'

/** Builds of OVMF by the size of their variable store: code and variables must be of one kind. */
const builds = [
  {
    varsBytes: 540_672,
    code: ['/usr/share/OVMF/OVMF_CODE_4M.fd', '/usr/share/edk2/x64/OVMF_CODE.4m.fd'],
  },
  {
    varsBytes: 131_072,
    code: [
      '/usr/share/OVMF/OVMF_CODE.fd',
      '/usr/share/edk2/ovmf/OVMF_CODE.fd',
      '/usr/share/edk2-ovmf/x64/OVMF_CODE.fd',
    ],
  },
]

/**
 * The OVMF code that fits a file of variables.
 * @throws PlasmaError `FirmwareMissing`
 */
export async function firmwareCodeFor(vars: string): Promise<string> {
  const { size } = await stat(vars)
  for (const code of builds.find((build) => build.varsBytes === size)?.code ?? []) {
    const there = await access(code).then(
      () => true,
      () => false,
    )
    if (there) return code
  }
  throw new PlasmaError('FirmwareMissing', `no UEFI firmware fits ${vars} (${size} bytes)`, {
    hint: 'install OVMF (Debian: apt install ovmf)',
  })
}

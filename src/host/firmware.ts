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
 * @throws PlasmaError `FirmwareMissing`, `VariablesDamaged`
 */
export async function firmwareCodeFor(vars: string): Promise<string> {
  const { size } = await stat(vars)
  const fitting = builds.find((build) => build.varsBytes === size)
  if (!fitting)
    throw new PlasmaError(
      'VariablesDamaged',
      `${vars} is damaged: no store of UEFI variables has ${size} bytes`,
      {
        hint: 'bring back the file as it was, or remove it to begin with an empty one',
      },
    )
  for (const code of fitting.code) {
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

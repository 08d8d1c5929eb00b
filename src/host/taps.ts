import { stat } from 'node:fs/promises'
import { errnoOf, inField, PlasmaError } from '../lib/errors.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { run } from './exec.ts'
import { tapName, uidOf } from './qemu-args.ts'

export type RunIp = (args: readonly string[]) => Promise<unknown>

const ip: RunIp = (args) => run('ip', args, { timeoutMs: 10_000 })

interface Link {
  readonly master?: string
  readonly linkinfo?: { readonly info_kind?: string }
}

async function linkOf(name: string, runIp: RunIp): Promise<Link | undefined> {
  try {
    const { stdout } = (await runIp(['-details', '-json', 'link', 'show', 'dev', name])) as { stdout: string }
    return (JSON.parse(stdout) as Link[])[0]
  } catch (error) {
    if (error instanceof PlasmaError && /does not exist|Cannot find device/.test(error.message))
      return undefined
    throw error
  }
}

/**
 * Makes sure a persistent tap is up on a bridge; an existing one is moved there. QEMU opens it by name.
 * @throws PlasmaError `BridgeMissing`, `NameTaken` (something that is no tap has the name), `CommandFailed`
 */
export async function ensureTap(name: string, bridge: string, runIp: RunIp = ip): Promise<void> {
  if ((await linkOf(bridge, runIp))?.linkinfo?.info_kind !== 'bridge')
    throw new PlasmaError('BridgeMissing', `this host has no bridge ${bridge}`, {
      hint: `ip link add ${bridge} type bridge && ip link set ${bridge} up`,
    })
  const link = await linkOf(name, runIp)
  if (link && link.linkinfo?.info_kind !== 'tun')
    throw new PlasmaError('NameTaken', `network device ${name} exists and is no tap`)
  if (!link) await addTap(name, runIp)
  if (link?.master !== bridge) await runIp(['link', 'set', 'dev', name, 'master', bridge])
  await runIp(['link', 'set', 'dev', name, 'up'])
}

async function addTap(name: string, runIp: RunIp): Promise<void> {
  try {
    await stat('/dev/net/tun')
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    throw new PlasmaError('TunMissing', 'this host has no /dev/net/tun', {
      hint: 'modprobe tun',
      cause: error,
    })
  }
  await runIp(['tuntap', 'add', 'dev', name, 'mode', 'tap'])
}

/** Deletes a tap. Safe to repeat; what is no tap is left alone. */
export async function removeTap(name: string, runIp: RunIp = ip): Promise<void> {
  const link = await linkOf(name, runIp)
  if (link?.linkinfo?.info_kind === 'tun') await runIp(['link', 'delete', 'dev', name])
}

/** QEMU run by root would make a missing one, on no bridge and gone with the machine. @throws PlasmaError `TapMissing` */
export async function requireTap(name: string, runIp: RunIp = ip): Promise<void> {
  if ((await linkOf(name, runIp))?.linkinfo?.info_kind === 'tun') return
  throw new PlasmaError('TapMissing', `this host has no tap ${name}`, {
    hint: `ip tuntap add dev ${name} mode tap && ip link set ${name} up`,
  })
}

/**
 * Makes the tap of every bridged network of a machine, and checks those that must exist.
 * @throws PlasmaError `BridgeMissing`, `TapMissing`, `NameTaken` naming the spec's field
 */
export async function ensureTaps(vm: VirtualMachine, runIp: RunIp = ip): Promise<void> {
  const uid = uidOf(vm)
  for (const [index, { name, bridge, tap }] of vm.spec.networks.entries()) {
    try {
      if (bridge) await ensureTap(tapName(uid, name), bridge.name, runIp)
      if (tap) await requireTap(tap.name, runIp)
    } catch (error) {
      const field = `spec.networks[${index}].${bridge ? 'bridge' : 'tap'}.name`
      throw inField(field, error, 'NetworkUnusable')
    }
  }
}

/** Removes what `ensureTaps` made; safe to repeat. */
export async function removeTaps(vm: VirtualMachine, runIp: RunIp = ip): Promise<void> {
  const uid = uidOf(vm)
  for (const { name, bridge } of vm.spec.networks) if (bridge) await removeTap(tapName(uid, name), runIp)
}

import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { z } from 'zod'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { type VirtualMachine, vmSpec } from '../resources/vm.ts'
import type { LaunchRecord } from './ports.ts'

const shape = z.object({
  version: z.literal(1),
  launchId: z.string().min(1),
  epoch: z.int(),
  hostName: z.string(),
  bootId: z.string(),
  at: z.string(),
  accelerator: z.string(),
  qemuVersion: z.string().optional(),
  specHash: z.string(),
  pending: z.object({ adding: z.array(z.string()), leaving: z.array(z.string()) }).optional(),
  manifest: z.looseObject({
    apiVersion: z.string(),
    kind: z.literal('VirtualMachine'),
    metadata: z.looseObject({ name: z.string(), uid: z.string() }),
    spec: z.looseObject({}),
  }),
  argv: z.array(z.string()),
})

/** What of a machine is kept in launch.json: what it should be, nothing of what it was. */
export function manifestOf(vm: VirtualMachine): VirtualMachine {
  const { name, namespace, uid, labels, annotations } = vm.metadata
  const metadata = {
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(uid === undefined ? {} : { uid }),
    ...(labels === undefined ? {} : { labels }),
    ...(annotations === undefined ? {} : { annotations }),
  }
  return { apiVersion: vm.apiVersion, kind: vm.kind, metadata, spec: vm.spec }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Writes launch.json so that a crash or power loss leaves the old one or the new one. @throws the system error */
export async function writeLaunchRecord(path: string, record: LaunchRecord): Promise<void> {
  const part = `${path}.part`
  const file = await open(part, 'w', 0o600)
  try {
    await file.writeFile(`${JSON.stringify(record, null, 1)}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(part, path)
  await syncFolder(dirname(path))
}

/**
 * Reads launch.json; undefined where there is none.
 * @throws PlasmaError `LaunchRecordUnreadable`
 */
export async function readLaunchRecord(path: string): Promise<LaunchRecord | undefined> {
  try {
    const record = shape.parse(JSON.parse(await readFile(path, 'utf8')))
    // Members that are newer than the record have their defaults, as in a stored machine. One that is no longer a spec
    // of ours is still all there is to know.
    const spec = vmSpec.safeParse(record.manifest.spec).data ?? record.manifest.spec
    return { ...record, manifest: { ...record.manifest, spec } } as unknown as LaunchRecord
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw new PlasmaError('LaunchRecordUnreadable', `${path} can't be read: ${messageOf(error)}`, {
      hint: 'the machine is left alone; repair the file, or stop the QEMU and remove its folder',
      cause: error,
    })
  }
}

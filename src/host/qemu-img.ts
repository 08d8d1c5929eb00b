import { open, stat } from 'node:fs/promises'
import { PlasmaError } from '../lib/errors.ts'
import { type RunOptions, run } from './exec.ts'

export type DiskFormat = 'qcow2' | 'raw'

const hour = 3_600_000
const qcow2Magic = 0x514649fb

/** qemu-img rounds sizes up to whole sectors. */
export function wholeSectors(bytes: number): number {
  return Math.ceil(bytes / 512) * 512
}

/**
 * Virtual size of a disk in bytes, without starting a process: a raw disk's is its length, a qcow2 disk's stands in its
 * header (QEMU docs/interop/qcow2.txt, bytes 24 to 31).
 * @throws PlasmaError `NotQcow2`, and errors of the file system
 */
export async function virtualSize(path: string, format: DiskFormat): Promise<number> {
  if (format === 'raw') return (await stat(path)).size
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(32), 0, 32, 0)
    if (bytesRead < 32 || buffer.readUInt32BE(0) !== qcow2Magic)
      throw new PlasmaError('NotQcow2', `${path} is not a qcow2 image`)
    return Number(buffer.readBigUInt64BE(24))
  } finally {
    await file.close()
  }
}

export interface ImageInfo {
  readonly format: string
  readonly virtualBytes: number
}

/**
 * What an image file is. An image that refers to other files is refused: it could name any file of the host.
 * @throws PlasmaError `ImageRefersElsewhere`, `CommandFailed` where it is damaged
 */
export async function imageInfo(path: string, signal: AbortSignal): Promise<ImageInfo> {
  const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', path], { signal })
  const info = JSON.parse(stdout) as Record<string, unknown>
  const format = String(info['format'])
  const specific = info['format-specific'] as { data?: Record<string, unknown> } | undefined
  const elsewhere = info['backing-filename'] ?? specific?.data?.['data-file']
  // VMDK and the like name their extents in ways that differ; these formats keep all in one file.
  if (elsewhere !== undefined || !['qcow2', 'raw', 'vdi', 'vhdx', 'vpc', 'qed'].includes(format))
    throw new PlasmaError('ImageRefersElsewhere', `image ${path} (${format}) may refer to other files`, {
      hint: 'flatten it: qemu-img convert -O qcow2 <image> <new image>',
    })
  return { format, virtualBytes: Number(info['virtual-size']) }
}

async function qemuImg(args: readonly string[], options: RunOptions): Promise<void> {
  try {
    await run('qemu-img', args, { timeoutMs: hour, endsWithUs: true, ...options })
  } catch (error) {
    const text = String((error as Error)?.message)
    if (/No space left|ENOSPC/.test(text))
      throw new PlasmaError('NoSpace', `no space left on the disk's file system: ${text}`, { cause: error })
    if (/Failed to get .*lock/.test(text))
      throw new PlasmaError('DiskInUse', `the disk is in use by a running QEMU: ${text}`, { cause: error })
    throw error
  }
}

/** Creates an empty disk of `bytes`. */
export function createBlank(path: string, format: DiskFormat, bytes: number, signal: AbortSignal) {
  return qemuImg(['create', '-q', '-f', format, path, String(bytes)], { signal })
}

/** Creates a qcow2 overlay on an image, whose format is written down so that it is never guessed. */
export function createOverlay(
  path: string,
  base: { readonly path: string; readonly format: string },
  bytes: number,
  signal: AbortSignal,
) {
  const args = ['create', '-q', '-f', 'qcow2', '-F', base.format, '-b', base.path, path, String(bytes)]
  return qemuImg(args, { signal })
}

/** Copies an image into a raw file; `onPercent` gets whole percents. */
export function convertToRaw(
  from: { readonly path: string; readonly format: string },
  to: string,
  signal: AbortSignal,
  onPercent: (percent: number) => void,
) {
  const onStdout = (text: string) => {
    const percent = [...text.matchAll(/\((\d+)(?:\.\d+)?\/100%\)/g)].at(-1)?.[1]
    if (percent !== undefined) onPercent(Number(percent))
  }
  return qemuImg(['convert', '-p', '-f', from.format, '-O', 'raw', from.path, to], { signal, onStdout })
}

/** Grows a disk to `bytes`. @throws PlasmaError `DiskInUse` where a QEMU holds it */
export function grow(path: string, format: DiskFormat, bytes: number, signal: AbortSignal) {
  return qemuImg(['resize', '-q', '-f', format, path, String(bytes)], { signal })
}

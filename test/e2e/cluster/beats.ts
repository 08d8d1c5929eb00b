import { copyFile, rm } from 'node:fs/promises'
import { command } from '../../../src/drill/cluster/processes.ts'
import { runToEnd } from '../../../src/host/exec.ts'

/** A line that the guest wrote: in which boot, and which it was of that. */
export interface Beat {
  readonly boot: number
  readonly beat: number
}

/** What a guest told on its console once it was on its disk. */
export function toldBeats(console: string): Beat[] {
  return [...console.matchAll(/PlasmaVMC guest beat (\d+) (\d+)\r?\n/g)].map(([, boot, beat]) => ({
    boot: Number(boot),
    beat: Number(beat),
  }))
}

/** What is on the disk of a guest that beats, its journal replayed. @throws Error where the file system is damaged */
export async function diskBeats(file: string): Promise<{ readonly boots: number; readonly beats: Beat[] }> {
  const copy = `${file}.look`
  await copyFile(file, copy)
  try {
    const { exitCode = -1, stdout } = await runToEnd('e2fsck', ['-p', copy])
    // 1: it had to replay the journal, or to correct what a cut leaves behind.
    if (exitCode !== 0 && exitCode !== 1)
      throw new Error(`the file system of ${file} is damaged: e2fsck ${exitCode}: ${stdout}`)
    const boots = Number(await command('debugfs', '-R', 'cat /boots', copy))
    const lines = (await command('debugfs', '-R', 'cat /beats', copy)).split('\n')
    const beats = lines.flatMap((line) => {
      const [, boot, beat] = /^(\d+) (\d+)$/.exec(line) ?? []
      return boot === undefined ? [] : [{ boot: Number(boot), beat: Number(beat) }]
    })
    return { boots, beats }
  } finally {
    await rm(copy, { force: true })
  }
}

/** Why these beats were not written by one guest after the other, or lack one that was told; undefined where all is well. */
export function brokenBeats(onDisk: readonly Beat[], told: readonly Beat[]): string | undefined {
  for (const [i, { boot, beat }] of onDisk.entries()) {
    const before = onDisk[i - 1] ?? { boot: 0, beat: 0 }
    const follows = boot === before.boot ? beat === before.beat + 1 : boot > before.boot && beat === 1
    if (!follows)
      return `beat ${boot} ${beat} follows ${before.boot} ${before.beat}: two guests wrote, or one write is lost`
  }
  const there = new Set(onDisk.map(({ boot, beat }) => `${boot} ${beat}`))
  const lost = told.find(({ boot, beat }) => !there.has(`${boot} ${beat}`))
  return lost && `beat ${lost.boot} ${lost.beat} was told and is not on the disk`
}

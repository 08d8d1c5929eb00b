/**
 * Plays deploy/systemd on a Debian with systemd and a hardware watchdog, under emulation, and says what held: exit code 1
 * where something did not. Takes root, mmdebstrap, e2fsprogs, an SSH client and half an hour:
 *   npm run test:systemd [-- WORD]    only the plays of whose name it is a part; what they build on is played too
 */
import { messageOf } from '../src/lib/errors.ts'
import { Guest } from './systemd/guest.ts'
import { folder, makeImage } from './systemd/image.ts'
import { type Play, plays } from './systemd/plays.ts'

const say = (text: string) => console.error(`systemd: ${text}`)

/** The plays up to the last that is meant. */
function chosen(word: string | undefined): readonly Play[] {
  if (word === undefined) return plays
  const last = plays.findLastIndex(([name]) => name.includes(word))
  if (last < 0) throw new Error(`no play is called '${word}'`)
  return plays.slice(0, last + 1)
}

/** @returns how many did not hold */
async function play(all: readonly Play[]): Promise<number> {
  let failed = 0
  const guest = await Guest.start()
  try {
    for (const [name, work] of all) {
      const started = performance.now()
      const why = await work(guest).then(() => undefined, messageOf)
      const seconds = Math.round((performance.now() - started) / 1_000)
      console.log(`${why === undefined ? 'held' : 'FAIL'}  ${name} (${seconds} s)`)
      if (why === undefined) continue
      failed++
      console.log(why.replaceAll(/^/gm, '      '))
    }
  } finally {
    guest.close()
  }
  return failed
}

try {
  const all = chosen(process.argv[2])
  await makeImage(say)
  say('booting')
  const failed = await play(all)
  console.log(`${all.length - failed} passed, ${failed} failed`)
  process.exitCode = failed > 0 ? 1 : 0
} catch (error) {
  say(`${messageOf(error)} (logs: ${folder})`)
  process.exitCode = 1
}

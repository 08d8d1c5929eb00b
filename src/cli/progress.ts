import type { Io } from './io.ts'
import { plain } from './output.ts'

/** What is over within this long needs no words. */
const quietMs = 700

/**
 * One line about what goes on, on stderr, once it has gone on for a while: overwritten in place on a terminal, a new
 * line per change elsewhere.
 */
export function progressLine(io: Pick<Io, 'stderr' | 'clock'>): { show(text: string): void; end(): void } {
  const tty = io.stderr.isTTY === true
  let wanted = ''
  let shown = ''
  let quiet = true
  const write = () => {
    if (wanted === shown) return
    shown = wanted
    const room = (io.stderr.columns ?? 80) - 1
    io.stderr.write(tty ? `\r\u001b[K${plain(shown).slice(0, room)}` : `${plain(shown)}\n`)
  }
  const cancel = io.clock.after(quietMs, () => {
    quiet = false
    write()
  })
  return {
    show(text) {
      wanted = text
      if (!quiet) write()
    },
    end() {
      cancel()
      if (tty && shown !== '') io.stderr.write('\r\u001b[K')
      shown = ''
      wanted = ''
    },
  }
}

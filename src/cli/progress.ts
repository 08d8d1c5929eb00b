import type { Io } from './io.ts'

/** One line about what goes on, on stderr: overwritten in place on a terminal, a new line per change elsewhere. */
export function progressLine(io: Pick<Io, 'stderr'>): { show(text: string): void; end(): void } {
  let last = ''
  const tty = io.stderr.isTTY === true
  return {
    show(text) {
      if (text === last) return
      last = text
      const room = (io.stderr.columns ?? 80) - 1
      io.stderr.write(tty ? `\r\u001b[K${text.slice(0, room)}` : `${text}\n`)
    },
    end() {
      if (tty && last !== '') io.stderr.write('\r\u001b[K')
      last = ''
    },
  }
}

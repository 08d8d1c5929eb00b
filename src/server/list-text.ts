import { Readable } from 'node:stream'

/** Characters that are sent at once: a long list as one piece would hold up everybody else, and fill the memory twice. */
const pieceLength = 128 * 1024

/**
 * The JSON text of a list from the texts of its items: as a string, or as a stream where it is long.
 * @param head the list without its items, as JSON of an object
 */
export function listBody(head: string, items: readonly string[]): string | Readable {
  return inPieces(partsOf(`${head.slice(0, -1)},"items":[`, items))
}

function* partsOf(head: string, items: readonly string[]): Generator<string> {
  yield head
  for (const [index, item] of items.entries()) yield index === 0 ? item : `,${item}`
  yield ']}'
}

/** Text from its parts: as a string, or as a stream where it is long. */
export function inPieces(parts: Iterable<string>): string | Readable {
  const pieces = piecesOf(parts)
  const first = pieces.next()
  const second = pieces.next()
  if (second.done) return first.value ?? ''
  return Readable.from(all([first.value ?? '', second.value], pieces))
}

function* piecesOf(parts: Iterable<string>): Generator<string, undefined> {
  let piece = ''
  for (const part of parts) {
    if (piece.length >= pieceLength) {
      yield piece
      piece = ''
    }
    piece += part
  }
  yield piece
}

function* all(first: readonly string[], rest: Iterable<string>): Generator<Buffer> {
  for (const piece of first) yield Buffer.from(piece)
  for (const piece of rest) yield Buffer.from(piece)
}

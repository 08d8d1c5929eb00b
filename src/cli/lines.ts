import { StringDecoder } from 'node:string_decoder'
import { PlasmaError } from '../lib/errors.ts'

/** Longest line of a watch stream, in characters: some times the largest object a server keeps. */
const longest = 32 << 20

/** Splits chunks into lines; empty ones and an unfinished last one are dropped. @throws PlasmaError TooLarge */
export async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8')
  let pending = ''
  for await (const chunk of chunks) {
    const parts = (pending + decoder.write(Buffer.from(chunk))).split('\n')
    pending = parts.pop() ?? ''
    if (pending.length > longest) throw new PlasmaError('TooLarge', 'the server sent an endless line')
    for (const part of parts) if (part.trim() !== '') yield part
  }
}

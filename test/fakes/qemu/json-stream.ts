/**
 * Splits what a client sends into JSON texts as QEMU's parser does: by balanced braces and not by lines
 * (docs/interop/qmp-spec.rst section 2). A text that is no object or array ends at the next space.
 */
export class JsonStream {
  #text = ''
  #at = 0
  #depth = 0
  #inString = false

  /** The texts that `chunk` completes. */
  push(chunk: string): string[] {
    this.#text += chunk
    const texts: string[] = []
    for (; this.#at < this.#text.length; this.#at++) {
      const end = this.#step(this.#text[this.#at] ?? '')
      if (end === undefined) continue
      const text = this.#text.slice(0, this.#at + end).trim()
      this.#text = this.#text.slice(this.#at + end)
      this.#at = -1
      if (text !== '') texts.push(text)
    }
    return texts
  }

  /** 1 where the text ends with this character, 0 where it ends before it. */
  #step(char: string): 0 | 1 | undefined {
    if (this.#inString) {
      if (char === '\\') this.#at++
      else if (char === '"') this.#inString = false
      return undefined
    }
    if (char === '"') this.#inString = true
    else if (char === '{' || char === '[') this.#depth++
    else if (char === '}' || char === ']') {
      this.#depth = Math.max(0, this.#depth - 1)
      if (this.#depth === 0) return 1
    } else if (this.#depth === 0 && /\s/.test(char)) return 1
    return undefined
  }
}

/** Lines out of any chunks; each octet is looked at once, however small the chunks are. */

export class Lines {
  readonly #most: number
  readonly #text = new TextDecoder('utf-8')
  /** The parts of a line that has not ended, and their length together. */
  #parts: string[] = []
  #length = 0

  /** `most`: characters of the longest line. */
  constructor(most: number) {
    this.#most = most
  }

  /** The lines that end in `chunk`, without their ends; undefined once one is too long. */
  take(chunk: Uint8Array): readonly string[] | undefined {
    const whole: string[] = []
    const text = this.#text.decode(chunk, { stream: true })
    let from = 0
    for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', from)) {
      if (!this.#add(text.slice(from, at))) return undefined
      whole.push(this.#parts.join(''))
      this.#parts = []
      this.#length = 0
      from = at + 1
    }
    return this.#add(text.slice(from)) ? whole : undefined
  }

  #add(part: string): boolean {
    if (part !== '') this.#parts.push(part)
    this.#length += part.length
    return this.#length <= this.#most
  }
}

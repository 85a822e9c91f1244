/**
 * What one direction of a connection keeps while its session is held, in its order. Credit bounds its bytes; its number
 * is bounded here, because a sender chooses how small its frames are.
 */

/** Bytes that follow one another become one piece up to here. */
const PIECE_BYTES = 16 * 1024
/** More of a device's signals than this are not kept; the only one that passes says how a program ended, once. */
const SIGNALS = 16

/** Bytes to take as if they came now, or something to do. */
type Piece = Uint8Array | (() => void)

export class Kept {
  readonly #pieces: Piece[] = []
  /** How many octets of the last piece are in use, where that is bytes: it has room for more. */
  #used = 0
  #signals = 0

  get empty(): boolean {
    return this.#pieces.length === 0
  }

  /**
   * A copy of `chunk`, behind all that is kept; joined to the bytes before it where both are few. What a tunnel lends is
   * memory into which every connection of this process is read: by the time that the session goes on, it holds another's.
   */
  bytes(chunk: Uint8Array): void {
    const last = this.#pieces.at(-1)
    const length = this.#used + chunk.length
    if (!(last instanceof Uint8Array) || length > PIECE_BYTES) {
      this.#seal()
      this.#pieces.push(Uint8Array.from(chunk))
      this.#used = chunk.length
      return
    }
    let room = last
    if (length > last.length) {
      room = new Uint8Array(Math.min(PIECE_BYTES, length * 2))
      room.set(last.subarray(0, this.#used))
      this.#pieces[this.#pieces.length - 1] = room
    }
    room.set(chunk, this.#used)
    this.#used = length
  }

  act(act: () => void): void {
    this.#seal()
    this.#pieces.push(act)
  }

  /** Dropped where so many wait already. */
  signal(act: () => void): void {
    if (this.#signals === SIGNALS) return
    this.#signals++
    this.act(() => {
      this.#signals--
      act()
    })
  }

  /** The oldest, which is kept no longer; undefined: none is left. */
  next(): Piece | undefined {
    if (this.#pieces.length === 1) this.#seal()
    return this.#pieces.shift()
  }

  clear(): void {
    this.#pieces.length = 0
  }

  /** What is not in use of the last piece is no part of it, and it grows no more. */
  #seal(): void {
    const last = this.#pieces.at(-1)
    if (last instanceof Uint8Array && last.length !== this.#used)
      this.#pieces[this.#pieces.length - 1] = last.subarray(0, this.#used)
  }
}

/**
 * Steps through DER that `checkDer` has passed, value by value, and remembers none of them: for what
 * is read once, in its order, and for every request.
 */
import { checkDer, DerError, type DerPart, type Limits } from './reader.ts'

export class Cursor implements DerPart {
  readonly source: Uint8Array
  /** Of the value it stands on; 0 before the first. */
  tag = 0
  from: number
  to: number
  #start: number
  readonly #end: number

  /** Before the first of the values that fill the octets `from` to `end` of `source`. */
  constructor(source: Uint8Array, from: number, end: number) {
    this.source = source
    this.from = from
    this.to = from
    this.#start = from
    this.#end = end
  }

  /** Checks bytes that hold one value, as `readDer` does, and stands before it. Throws DerError. */
  static over(bytes: Uint8Array, limits?: Limits): Cursor {
    checkDer(bytes, limits)
    return new Cursor(bytes, 0, bytes.length)
  }

  /** Before the first of what is inside a constructed value that was read already. */
  static within({ source, from, to }: DerPart): Cursor {
    return new Cursor(source, from, to)
  }

  /** Steps to the next value; false when there is none. */
  next(): boolean {
    const { source } = this
    const start = this.to
    if (start === this.#end) return false
    let from = start + 2
    let length = source[start + 1] ?? 0
    if (length >= 0x80) {
      let left = length & 0x7f
      for (length = 0; left > 0; left--) length = length * 256 + (source[from++] ?? 0)
    }
    this.tag = source[start] ?? 0
    this.#start = start
    this.from = from
    this.to = from + length
    return true
  }

  /** Steps to the next value, which must have this tag, or a DerError names `what`. */
  step(tag: number, what: string): this {
    if (!this.next()) throw new DerError(`${what} is missing`)
    if (this.tag !== tag) throw new DerError(`${what} is of another type`)
    return this
  }

  /** Steps into the next value, which must have this tag, or a DerError names `what`. */
  into(tag: number, what: string): Cursor {
    this.step(tag, what)
    return this.inside()
  }

  /** Before the first of what is inside the value it stands on, which is constructed. */
  inside(): Cursor {
    return Cursor.within(this)
  }

  /** Whether nothing comes next. */
  get empty(): boolean {
    return this.to === this.#end
  }

  /** A DerError that says `what` has other parts, unless all of them have been passed. */
  end(what: string): void {
    if (!this.empty) throw new DerError(`${what} has other parts`)
  }

  /** Tag, length and value as they came. */
  get bytes(): Uint8Array {
    return this.source.subarray(this.#start, this.to)
  }
  get value(): Uint8Array {
    return this.source.subarray(this.from, this.to)
  }
}

/**
 * The strings a module was compiled with, and values that use them. A module compares two values by their
 * address before it looks at them, so a key that is the module's own constant is found without reading it.
 */
import { AS_DIGITS, AS_INTEGER, TYPE } from './shape.ts'

/** The text of each constant, and where the module keeps it. */
export type Constants = ReadonlyMap<string, number>

/** Type, length, place: as the compiler writes them, one after the other and nowhere aligned. */
const [CONSTANT, ENTRY_BYTES] = [8, 12]
/** A table shorter than this may be a likeness; the library alone has more. */
const FEWEST = 32
const LONGEST = 65_536
/** Deeper than any data that the schema admits. */
const DEEPEST = 32

/** Every character counts: a mark that a text begins with makes it another text. */
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Entries from an address on, each text where the one before ends with its NUL. */
function entriesAt(view: DataView, at: number): number {
  let count = 0
  let next = 0
  for (let entry = at; entry + ENTRY_BYTES <= view.byteLength; entry += ENTRY_BYTES) {
    const length = view.getUint32(entry + 4, true)
    const place = view.getUint32(entry + 8, true)
    if (view.getUint32(entry, true) !== CONSTANT || length > LONGEST) return count
    if ((count > 0 && place !== next) || place + length >= view.byteLength) return count
    if (view.getUint8(place + length) !== 0) return count
    next = place + length + 1
    count++
  }
  return count
}

/** Undefined where the bytes are not UTF-8: no input has such a text. */
function textOf(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes)
  } catch {
    return undefined
  }
}

/**
 * Finds the table of a module's constants in what lies below its heap.
 * Gives: every constant of up to 64 KiB by its text, where it is met first, without those that are no text;
 * nothing where there is no such table.
 */
export function findConstants(memory: Uint8Array<ArrayBuffer>): Constants {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength)
  const found = new Map<string, number>()
  let at = memory.indexOf(CONSTANT)
  while (at >= 0) {
    const count = entriesAt(view, at)
    if (count >= FEWEST) {
      for (let entry = at; entry < at + count * ENTRY_BYTES; entry += ENTRY_BYTES) {
        const place = view.getUint32(entry + 8, true)
        const bytes = memory.subarray(place, place + view.getUint32(entry + 4, true))
        const text = textOf(bytes)
        if (text !== undefined && !found.has(text)) found.set(text, entry)
      }
      return found
    }
    at = memory.indexOf(CONSTANT, at + 1)
  }
  return found
}

/** Writes over one value, and all below it. */
class Walk {
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #constants: Constants
  /** Each value takes some bytes of memory: more than this many, and one is met again. */
  #left: number

  constructor(memory: ArrayBuffer, constants: Constants) {
    this.#view = new DataView(memory)
    this.#bytes = new Uint8Array(memory)
    this.#constants = constants
    this.#left = memory.byteLength / 4
  }

  /** The address that stands for the value from now on. */
  value(at: number, depth: number): number {
    if (depth > DEEPEST || this.#left-- <= 0) throw new RangeError('no value ends here')
    const type = this.#view.getUint8(at)
    if (type === TYPE.string) return this.#constants.get(this.#text(at + 4, at + 8)) ?? at
    if (type === TYPE.number) this.#number(at)
    else if (type === TYPE.array) this.#list(at, depth)
    else if (type === TYPE.object) this.#object(at, depth)
    return at
  }

  #text(length: number, place: number): string {
    const from = this.#view.getUint32(place, true)
    return decoder.decode(this.#bytes.subarray(from, from + this.#view.getUint32(length, true)))
  }

  /** Digits are read anew whenever such a number is compared. */
  #number(at: number): void {
    if (this.#view.getUint16(at, true) !== (TYPE.number | AS_DIGITS)) return
    const digits = this.#text(at + 12, at + 8)
    const value = Number(digits)
    if (!Number.isSafeInteger(value) || String(value) !== digits) return
    this.#view.setUint16(at, TYPE.number | AS_INTEGER, true)
    this.#view.setBigInt64(at + 8, BigInt(value), true)
  }

  #list(at: number, depth: number): void {
    const elements = this.#view.getUint32(at + 4, true)
    const end = elements + 8 * this.#view.getUint32(at + 8, true)
    for (let element = elements; element < end; element += 8) this.#replace(element + 4, depth)
  }

  #object(at: number, depth: number): void {
    const buckets = this.#view.getUint32(at + 4, true)
    const end = buckets + 4 * this.#view.getUint32(at + 8, true)
    for (let bucket = buckets; bucket < end; bucket += 4) {
      let link = this.#view.getUint32(bucket, true)
      while (link !== 0) {
        this.#replace(link, depth)
        this.#replace(link + 4, depth)
        link = this.#view.getUint32(link + 8, true)
      }
    }
  }

  #replace(word: number, depth: number): void {
    const at = this.#view.getUint32(word, true)
    const other = this.value(at, depth + 1)
    if (other !== at) this.#view.setUint32(word, other, true)
  }
}

/**
 * Lets a value in a module's memory, and all below it, use the module's constants for its strings, and the
 * module's own form of integers for its numbers. What it comes to is for the caller to look at.
 * Errors: RangeError or TypeError where the value is not laid out as expected.
 */
export function useConstants(memory: ArrayBuffer, value: number, constants: Constants): void {
  new Walk(memory, constants).value(value, 0)
}

/**
 * A result read where the module left it, instead of from the text it can print: for modules whose shape
 * is known and proven (shape.ts, proof.ts). What is not in a form known here is not guessed at: it is printed.
 */
import { TYPE } from './shape.ts'

/** Sets, and what a module uses for its own constants. */
const [SET, CONSTANT_STRING, CONSTANT_BOOLEAN] = [7, 8, 9]
const [INTEGER, DIGITS] = [1, 2]
/** A decision has some sixty values; one with more than this is printed. */
const MOST_VALUES = 4096
const DEEPEST = 16

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Not read: the value is to be printed. */
export const UNREAD: unique symbol = Symbol('unread')

/** Thrown where a form is not known; one for all, because nobody looks where it came from. */
class Unread extends Error {}
const NOT_KNOWN = new Unread('a form that is not known')

/** Reads the results of one instance. */
export class Lift {
  readonly #memory: WebAssembly.Memory
  /** Below it nothing changes between decisions: texts that lie there are read once. */
  readonly #base: number
  readonly #constants = new Map<number, string>()
  #view: DataView<ArrayBuffer>
  #bytes: Uint8Array<ArrayBuffer>
  #left = 0

  constructor(memory: WebAssembly.Memory, base: number) {
    this.#memory = memory
    this.#base = base
    this.#view = new DataView(memory.buffer)
    this.#bytes = new Uint8Array(memory.buffer)
  }

  /** A value as its JSON text would be parsed, or UNREAD: then it is to be printed. */
  value(address: number): unknown {
    const { buffer } = this.#memory
    if (this.#view.buffer !== buffer) {
      this.#view = new DataView(buffer)
      this.#bytes = new Uint8Array(buffer)
    }
    this.#left = MOST_VALUES
    try {
      return this.#value(address, 0)
    } catch (error) {
      // RangeError: an address beyond the memory; TypeError: bytes that are no text.
      if (error === NOT_KNOWN || error instanceof RangeError || error instanceof TypeError)
        return UNREAD
      throw error
    }
  }

  #value(address: number, depth: number): unknown {
    if (address === 0 || depth > DEEPEST || this.#left-- === 0) throw NOT_KNOWN
    switch (this.#view.getUint8(address)) {
      case TYPE.null:
        return null
      case TYPE.boolean:
      case CONSTANT_BOOLEAN:
        return this.#boolean(address)
      case TYPE.number:
        return this.#number(address)
      case TYPE.string:
      case CONSTANT_STRING:
        return this.#string(address)
      case TYPE.array:
        return this.#list(address, depth)
      case TYPE.object:
        return this.#object(address, depth)
      case SET:
        return this.#set(address, depth)
      default:
        throw NOT_KNOWN
    }
  }

  #boolean(address: number): boolean {
    const said = this.#view.getUint8(address + 1)
    if (said > 1) throw NOT_KNOWN
    return said === 1
  }

  #number(address: number): number {
    const form = this.#view.getUint8(address + 1)
    if (form !== INTEGER && form !== DIGITS) throw NOT_KNOWN
    const low = this.#view.getUint32(address + 8, true)
    const value =
      form === INTEGER
        ? this.#view.getInt32(address + 12, true) * 2 ** 32 + low
        : Number(this.#text(low, this.#view.getUint32(address + 12, true)))
    // Beyond 2^53, and with a fraction, printing has the last word.
    if (!Number.isSafeInteger(value)) throw NOT_KNOWN
    return value
  }

  #string(address: number): string {
    const known = this.#constants.get(address)
    if (known !== undefined) return known
    const from = this.#view.getUint32(address + 8, true)
    const text = this.#text(from, this.#view.getUint32(address + 4, true))
    return address < this.#base ? this.#remembered(address, text) : text
  }

  /** As the engine keeps names of keys, which most of them are: a key of another form is looked for each time. */
  #remembered(address: number, text: string): string {
    const [name = text] = Object.keys({ [text]: null })
    this.#constants.set(address, name)
    return name
  }

  #text(from: number, length: number): string {
    const bytes = this.#bytes
    if (from === 0 || length > 65_536 || from + length > bytes.length) throw NOT_KNOWN
    if (length > 40) return decoder.decode(bytes.subarray(from, from + length))
    let text = ''
    for (let at = from; at < from + length; at++) {
      const code = bytes[at] ?? 0x80
      if (code > 0x7e) return decoder.decode(bytes.subarray(from, from + length))
      text += String.fromCharCode(code)
    }
    return text
  }

  /** Array: type, elements, length, capacity. An element is its index and its value. */
  #list(address: number, depth: number): unknown[] {
    const elements = this.#view.getUint32(address + 4, true)
    const length = this.#view.getUint32(address + 8, true)
    if (length > MOST_VALUES) throw NOT_KNOWN
    const list: unknown[] = []
    for (let index = 0; index < length; index++)
      list.push(this.#value(this.#view.getUint32(elements + 8 * index + 4, true), depth + 1))
    return list
  }

  /** Set: type, buckets, their number, length. A bucket is a chain of value, next; they are printed as they lie. */
  #set(address: number, depth: number): unknown[] {
    const view = this.#view
    const buckets = view.getUint32(address + 4, true)
    const size = view.getUint32(address + 8, true)
    const length = view.getUint32(address + 12, true)
    const list: unknown[] = []
    for (let bucket = 0; bucket < size && list.length < length; bucket++) {
      let element = view.getUint32(buckets + 4 * bucket, true)
      while (element !== 0) {
        list.push(this.#value(view.getUint32(element, true), depth + 1))
        element = view.getUint32(element + 4, true)
      }
    }
    if (list.length !== length) throw NOT_KNOWN
    return list
  }

  #object(address: number, depth: number): object {
    const view = this.#view
    const buckets = view.getUint32(address + 4, true)
    const size = view.getUint32(address + 8, true)
    let missing = view.getUint32(address + 12, true)
    const object: Record<string, unknown> = {}
    for (let bucket = 0; bucket < size && missing > 0; bucket++) {
      let element = view.getUint32(buckets + 4 * bucket, true)
      while (element !== 0 && missing-- > 0) {
        const name = this.#value(view.getUint32(element, true), depth + 1)
        if (typeof name !== 'string' || name === '__proto__') throw NOT_KNOWN
        object[name] = this.#value(view.getUint32(element + 4, true), depth + 1)
        element = view.getUint32(element + 8, true)
      }
      if (element !== 0) throw NOT_KNOWN
    }
    if (missing !== 0) throw NOT_KNOWN
    return object
  }
}

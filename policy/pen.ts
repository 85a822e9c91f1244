/** What sets single values down in a module's memory, and counts the text that they would have been. place.ts. */
import { MAX_INPUT_BYTES, Page, TOO_LONG } from './encode.ts'
import { AS_DIGITS, AS_INTEGER, NUMBER_BYTES, TYPE, type RecordShape } from './shape.ts'

/** What of an instance an input is placed in. */
export interface Ground {
  readonly memory: WebAssembly.Memory
  /** The first address that is free before every decision; a multiple of four. */
  readonly base: number
  /** Takes so many bytes, a multiple of four, from what is free, for good; gives where they begin. */
  reserve(bytes: number): number
  /** The value of a JSON text, made from an address on; gives it and the address after it. */
  parse(text: Uint8Array, at: number): { readonly value: number; readonly end: number }
}

/** Sets a value down and gives its address; 0 where it breaks the schema, and the pen says how. */
export type Place = (value: unknown, pen: Pen) => number

const encoder = new TextEncoder()
const [QUOTE, BACKSLASH] = [0x22, 0x5c]
/** Of a string's header. */
export const STRING_BYTES = 12

/** Where the next value comes to lie, and how much text it would have been. */
export class Pen {
  readonly ground: Ground
  words: Int32Array<ArrayBuffer>
  bytes: Uint8Array<ArrayBuffer>
  at = 0
  /** Bytes of the text it would have been so far, fields no rule reads included. */
  size = 0
  problem = ''
  /** Whether a string with a lone surrogate was made well-formed. */
  repaired = false
  /** Whether nothing was added to all objects at once. */
  clean = true
  /** For what is handed over as text. */
  readonly page: Page = new Page()

  constructor(ground: Ground) {
    this.ground = ground
    this.words = new Int32Array(ground.memory.buffer)
    this.bytes = new Uint8Array(ground.memory.buffer)
  }

  begin(): void {
    const { base, memory } = this.ground
    if (this.words.buffer !== memory.buffer) {
      this.words = new Int32Array(memory.buffer)
      this.bytes = new Uint8Array(memory.buffer)
    }
    this.at = base
    this.size = 0
    this.repaired = false
    this.clean = isClean()
  }

  wrong(problem: string): 0 {
    this.problem = problem
    return 0
  }
}

/** Copies a record's blank form to an address. */
export function putBlank({ words, relative }: RecordShape, at: number, pen: Pen): void {
  const { words: memory } = pen
  const base = at >> 2
  for (let word = 0; word < words.length; word++) memory[base + word] = words[word] ?? 0
  for (const word of relative) memory[base + word] = at + (words[word] ?? 0)
}

/** The header of a string whose bytes follow it; gives its address. */
function closeString(pen: Pen, length: number): number {
  const { at, words } = pen
  words[at >> 2] = TYPE.string
  words[(at >> 2) + 1] = length
  words[(at >> 2) + 2] = at + STRING_BYTES
  pen.at = at + ((STRING_BYTES + length + 3) & ~3)
  return at
}

/** A string that JSON escapes, or that is not ASCII. */
function placeHard(text: string, pen: Pen): number {
  if (text.includes('\0')) return pen.wrong(': holds NUL')
  const good = text.toWellFormed()
  if (good !== text) pen.repaired = true
  const printed = JSON.stringify(good)
  const { read, written } = encoder.encodeInto(printed, pen.page.bytes)
  pen.size += written
  if (read !== printed.length || pen.size > MAX_INPUT_BYTES) return pen.wrong(TOO_LONG)
  const start = pen.at + STRING_BYTES
  return closeString(pen, encoder.encodeInto(good, pen.bytes.subarray(start)).written)
}

export function placeString(text: string, pen: Pen): number {
  const { bytes } = pen
  const { length } = text
  if (length > MAX_INPUT_BYTES) return pen.wrong(TOO_LONG)
  const start = pen.at + STRING_BYTES
  for (let from = 0; from < length; from++) {
    const code = text.charCodeAt(from)
    if (code < 0x20 || code > 0x7e || code === QUOTE || code === BACKSLASH)
      return placeHard(text, pen)
    bytes[start + from] = code
  }
  pen.size += length + 2
  return pen.size > MAX_INPUT_BYTES ? pen.wrong(TOO_LONG) : closeString(pen, length)
}

/** A number that is no integer is kept by the module as its digits. */
function placeDigits(value: number, pen: Pen): number {
  const text = String(value)
  const { at, words, bytes } = pen
  const start = at + 24
  words.set([TYPE.number | AS_DIGITS, 0, start, text.length, 0, 0], at >> 2)
  for (let from = 0; from < text.length; from++) bytes[start + from] = text.charCodeAt(from)
  pen.size += text.length
  pen.at = start + ((text.length + 3) & ~3)
  return at
}

export function placeNumber(value: number, pen: Pen): number {
  if (!Number.isInteger(value)) return placeDigits(value, pen)
  const { at, words } = pen
  words[at >> 2] = TYPE.number | AS_INTEGER
  words[(at >> 2) + 2] = value | 0
  words[(at >> 2) + 3] = Math.floor(value / 2 ** 32)
  pen.at = at + NUMBER_BYTES
  pen.size += digits(value)
  return at
}

/** Characters of a safe integer. */
function digits(value: number): number {
  const size = Math.abs(value)
  let length = value < 0 ? 2 : 1
  for (let power = 10; power <= size; power *= 10) length++
  return length
}

/** Whether every object that is plain has no keys but its own. */
function isClean(): boolean {
  for (const _ in Object.prototype) return false
  return true
}

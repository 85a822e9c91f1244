/**
 * One pass over an input: every check of the schema, and the JSON the module reads, written into a page
 * that is used again for the next one. A value is read once, so what was checked is what is written.
 * A field no rule reads is checked and counted like the others, and not handed over.
 */
import { isPlain, numberCheck, stringCheck, typesOf, unknownKey } from './schema.ts'
import type { Schema } from './schema.ts'
import type { Reads } from './reads.ts'

/** Bytes of JSON that an input may take, fields no rule reads included. */
export const MAX_INPUT_BYTES = 16_384
/** Room for the longest single string beyond the limit, so that the limit is noticed after it. */
const PAGE_BYTES = MAX_INPUT_BYTES + 8192

/** Where an input is written. */
export class Page {
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(PAGE_BYTES)
  readonly view: DataView = new DataView(this.bytes.buffer)
  at = 0
  /** Bytes of fields that no rule reads. */
  unread = 0
  /** Whether a string with a lone surrogate was made well-formed. */
  repaired = false
}

/** Writes a value, or gives where it breaks the schema and how. */
export type Encode = (value: unknown, page: Page) => string | undefined

const encoder = new TextEncoder()
/** What is said of an input over the limit. */
export const TOO_LONG = `: longer than ${MAX_INPUT_BYTES} bytes in all`
const [QUOTE, COMMA, COLON, BACKSLASH] = [0x22, 0x2c, 0x3a, 0x5c]
const [OPEN_LIST, CLOSE_LIST, OPEN, CLOSE] = [0x5b, 0x5d, 0x7b, 0x7d]

/** Fixed text, four bytes to a word; what the last word has too many is written over by what follows. */
interface Fixed {
  readonly words: Int32Array
  readonly length: number
}

function fixed(text: string): Fixed {
  const bytes = encoder.encode(text)
  const padded = new DataView(new ArrayBuffer(Math.ceil(bytes.length / 4) * 4))
  for (const [at, byte] of bytes.entries()) padded.setUint8(at, byte)
  const words = new Int32Array(padded.byteLength / 4)
  for (let at = 0; at < words.length; at++) words[at] = padded.getInt32(4 * at, true)
  return { words, length: bytes.length }
}

const NULL = fixed('null')
const TRUE = fixed('true')
const FALSE = fixed('false')

function put({ words, length }: Fixed, page: Page): void {
  const { view, at } = page
  for (let word = 0; word < words.length; word++)
    view.setInt32(at + 4 * word, words[word] ?? 0, true)
  page.at = at + length
}

/** A string that JSON escapes, or that is not ASCII. */
function putHard(text: string, page: Page): string | undefined {
  if (text.includes('\0')) return ': holds NUL'
  const good = text.toWellFormed()
  if (good !== text) page.repaired = true
  const printed = JSON.stringify(good)
  const { read, written } = encoder.encodeInto(printed, page.bytes.subarray(page.at))
  page.at += written
  return read === printed.length && page.at + page.unread <= MAX_INPUT_BYTES ? undefined : TOO_LONG
}

function putString(text: string, page: Page): string | undefined {
  const { bytes } = page
  let at = page.at
  bytes[at++] = QUOTE
  for (let from = 0; from < text.length; from++) {
    const code = text.charCodeAt(from)
    if (code < 0x20 || code > 0x7e || code === QUOTE || code === BACKSLASH)
      return putHard(text, page)
    bytes[at++] = code
  }
  bytes[at++] = QUOTE
  page.at = at
  return at + page.unread > MAX_INPUT_BYTES ? TOO_LONG : undefined
}

function putNumber(value: number, page: Page): void {
  const { bytes } = page
  let at = page.at
  if (value >= 0 && value <= 0x7fff_ffff && Number.isInteger(value)) {
    let length = 1
    for (let power = 10; power <= value; power *= 10) length++
    let rest = Math.trunc(value)
    for (let place = at + length - 1; place >= at; place--) {
      const tenth = Math.trunc(rest / 10)
      bytes[place] = 0x30 + rest - tenth * 10
      rest = tenth
    }
    page.at = at + length
    return
  }
  const text = String(value)
  for (let from = 0; from < text.length; from++) bytes[at++] = text.charCodeAt(from)
  page.at = at
}

function listEncode(schema: Schema, reads: Reads): Encode {
  const { maxItems = Infinity } = schema
  const item = encodeOf(schema.items ?? { type: 'null' }, reads)
  return (value, page) => {
    const list = value as readonly unknown[]
    if (list.length > maxItems) return `: more than ${maxItems} items`
    page.bytes[page.at++] = OPEN_LIST
    for (let at = 0; at < list.length; at++) {
      if (at > 0) page.bytes[page.at++] = COMMA
      const problem = item(list[at], page)
      if (problem !== undefined) return `.${at}${problem}`
      if (page.at + page.unread > MAX_INPUT_BYTES) return TOO_LONG
    }
    page.bytes[page.at++] = CLOSE_LIST
    return undefined
  }
}

interface Field {
  readonly name: string
  /** `,"name":` in ASCII; the comma of the first becomes the brace. */
  readonly key: Fixed
  readonly encode: Encode
  readonly read: boolean
}

function fieldsOf(schema: Schema, reads: Reads): Field[] {
  return Object.entries(schema.properties ?? {}).map(([name, part]) => {
    const below = reads === true ? true : reads.get(name)
    const key = fixed(`,${JSON.stringify(name)}:`)
    return { name, key, encode: encodeOf(part, below ?? true), read: below !== undefined }
  })
}

function putField(field: Field, part: unknown, page: Page): string | undefined {
  const from = page.at
  put(field.key, page)
  const problem = field.encode(part, page)
  if (problem !== undefined) return `.${field.name}${problem}`
  if (field.read) return undefined
  page.unread += page.at - from
  page.at = from
  return undefined
}

/** An object whose keys are all named and all required, as nearly every one of ours is. */
function recordEncode(schema: Schema, reads: Reads): Encode {
  const fields = fieldsOf(schema, reads)
  const known = new Set(fields.map(({ name }) => name))
  return (value, page) => {
    const object = value as Readonly<Record<string, unknown>>
    if (!isPlain(object)) return ': not a plain object'
    const from = page.at
    for (const field of fields) {
      const part = object[field.name]
      if (part === undefined) return `.${field.name}: absent`
      const problem = putField(field, part, page)
      if (problem !== undefined) return problem
    }
    if (Object.keys(object).length !== fields.length) {
      const extra = Object.keys(object).find((name) => !known.has(name))
      return extra === undefined ? ': an inherited key' : unknownKey(extra)
    }
    if (page.at === from) page.at++
    page.bytes[from] = OPEN
    page.bytes[page.at++] = CLOSE
    return undefined
  }
}

/** A dictionary: any keys, values of one kind. */
function dictionaryEncode(schema: Schema, reads: Reads): Encode {
  const rest = schema.additionalProperties
  if (typeof rest !== 'object' || schema.properties !== undefined)
    throw new Error('an object of the input is a record or a dictionary')
  const { maxProperties = Infinity } = schema
  const nameLength = schema.propertyNames?.maxLength ?? Infinity
  const item = encodeOf(rest, true)
  return (value, page) => {
    const object = value as Readonly<Record<string, unknown>>
    if (!isPlain(object)) return ': not a plain object'
    const names = Object.keys(object)
    if (names.length > maxProperties) return `: more than ${maxProperties} keys`
    const from = page.at++
    for (const name of names) {
      if (name.length > nameLength) return `: a key longer than ${nameLength}`
      const start = page.at
      if (start > from + 1) page.bytes[page.at++] = COMMA
      const bad = putString(name, page)
      page.bytes[page.at++] = COLON
      const problem = bad ?? item(object[name], page)
      if (problem !== undefined) return bad === undefined ? `.${name}${problem}` : problem
      if (reads !== true && !reads.has(name)) {
        page.unread += page.at - start
        page.at = start
      }
    }
    page.bytes[from] = OPEN
    page.bytes[page.at++] = CLOSE
    return undefined
  }
}

function objectEncode(schema: Schema, reads: Reads): Encode {
  const names = Object.keys(schema.properties ?? {})
  const record = schema.additionalProperties === false && schema.required?.length === names.length
  return record ? recordEncode(schema, reads) : dictionaryEncode(schema, reads)
}

/**
 * Compiles the schema of an input.
 * Takes: a schema of records, dictionaries, lists and scalars; which fields are read (true: all).
 * Gives: a function that checks and writes. Errors: a plain Error for a schema of another form.
 */
export function encodeOf(schema: Schema, reads: Reads): Encode {
  const types = typesOf(schema)
  const wanted = `: not ${types.join(' or ')}`
  const integer = types.includes('integer')
  const string = types.includes('string') ? stringCheck(schema) : undefined
  const number = integer || types.includes('number') ? numberCheck(schema, integer) : undefined
  const object = types.includes('object') ? objectEncode(schema, reads) : undefined
  const list = types.includes('array') ? listEncode(schema, reads) : undefined
  const [nothing, flag] = [types.includes('null'), types.includes('boolean')]
  return (value, page) => {
    if (value === null) {
      if (!nothing) return wanted
      put(NULL, page)
      return undefined
    }
    if (typeof value === 'string')
      return string === undefined ? wanted : (string(value) ?? putString(value, page))
    if (typeof value === 'number') {
      const problem = number === undefined ? wanted : number(value)
      if (problem === undefined) putNumber(value, page)
      return problem
    }
    if (typeof value === 'boolean') {
      if (!flag) return wanted
      put(value ? TRUE : FALSE, page)
      return undefined
    }
    if (Array.isArray(value)) return list === undefined ? wanted : list(value, page)
    if (typeof value !== 'object' || object === undefined) return wanted
    return object(value, page)
  }
}

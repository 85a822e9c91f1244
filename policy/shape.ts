/**
 * How one module lays out the values it works on, found by looking at what it made of known texts. A
 * module laid out in any other way has no shape here, and gets its input as text.
 */
import { typesOf } from './schema.ts'
import type { Schema } from './schema.ts'
import type { Reads } from './reads.ts'

/** A record whose values are all null, ready to be copied: 32-bit words. */
export interface RecordShape {
  readonly words: Int32Array<ArrayBuffer>
  /** Words that count from the beginning of the copy. */
  readonly relative: readonly number[]
  /** Where the value of each field lies, by name. */
  readonly slots: ReadonlyMap<string, number>
}

/** Addresses of values that every input shares, and the records by their place in the schema. */
export interface Shape {
  readonly none: number
  readonly yes: number
  readonly no: number
  /** Of an object without keys, and of a list without items. */
  readonly empty: number
  readonly emptyList: number
  /** The numbers 0 to INDEXES - 1, one after the other. */
  readonly indexes: number
  /** Texts that the module was compiled with. */
  readonly constants: ReadonlyMap<string, number>
  readonly records: ReadonlyMap<string, RecordShape>
}

/** What of an instance is asked while its shape is found. */
export interface Shaping {
  /** The value that a JSON text comes to. */
  parse(text: string): number
  /** Room for so many bytes, at a multiple of four. */
  reserve(bytes: number): number
  /** The 32-bit word at an address, which need not be a multiple of four. */
  word(address: number): number
  /** Sets words from an address on that is. */
  set(address: number, words: readonly number[]): void
  bytes(from: number, to: number): Uint8Array
  /** Texts that the module was compiled with, by where it keeps them. */
  readonly constants: ReadonlyMap<string, number>
}

/** The type a value begins with (OPA's wasm/src/value.h), in the lowest byte of its first word. */
export const TYPE = { null: 1, boolean: 2, number: 3, string: 4, array: 5, object: 6 } as const
/** The second byte of a number: a 64-bit integer follows, or the place and length of its digits. */
export const AS_INTEGER = 1 << 8
export const AS_DIGITS = 2 << 8
/** Bytes of a number that is an integer. */
export const NUMBER_BYTES = 16
/** As many as the longest list of the schema has items. */
export const INDEXES = 256

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

class Unknown extends Error {}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Unknown(what)
}

function typeAt(from: Shaping, address: number): number {
  expect(address > 0, 'an address')
  return from.word(address) & 0xff
}

function textAt(from: Shaping, address: number): string {
  expect(typeAt(from, address) === TYPE.string, 'a string')
  const start = from.word(address + 8)
  return decoder.decode(from.bytes(start, start + from.word(address + 4)))
}

/** Object: type, buckets, their number, length. A bucket is a chain of key, value, next. */
function recordShape(from: Shaping, names: readonly string[]): RecordShape {
  const blank = Object.fromEntries(names.map((name) => [name, null]))
  const address = from.parse(JSON.stringify(blank))
  expect(typeAt(from, address) === TYPE.object, 'an object')
  const [head, buckets] = [from.word(address), from.word(address + 4)]
  const [size, length] = [from.word(address + 8), from.word(address + 12)]
  expect(length === names.length && size > 0 && size <= 4096, 'an object of this length')
  const words = [head, 4 * 4, size, length, ...Array.from({ length: size }, () => 0)]
  const relative = [1]
  const slots = new Map<string, number>()
  for (let bucket = 0; bucket < size; bucket++) {
    let link = 4 + bucket
    let at = from.word(buckets + 4 * bucket)
    while (at !== 0) {
      const [key, value] = [from.word(at), from.word(at + 4)]
      expect(typeAt(from, value) === TYPE.null && slots.size < length, 'a null under each key')
      words[link] = 4 * words.length
      relative.push(link)
      const name = textAt(from, key)
      slots.set(name, words.length + 1)
      link = words.length + 2
      words.push(from.constants.get(name) ?? key, value, 0)
      at = from.word(at + 8)
    }
  }
  expect(
    names.every((name) => slots.has(name)),
    'every key',
  )
  return { words: Int32Array.from(words), relative, slots }
}

/** The fields of a record that are read. */
function readFields(schema: Schema, reads: Reads): string[] {
  const names = Object.keys(schema.properties ?? {})
  return reads === true ? names : names.filter((name) => reads.has(name))
}

/** Whether an object has just the keys that are named, all of them. */
export function isRecord(schema: Schema): boolean {
  const names = Object.keys(schema.properties ?? {})
  return schema.additionalProperties === false && schema.required?.length === names.length
}

function visit(
  schema: Schema,
  reads: Reads,
  path: string,
  found: (path: string, names: readonly string[]) => void,
): void {
  const types = typesOf(schema)
  if (types.includes('array') && schema.items !== undefined)
    visit(schema.items, reads, `${path}[]`, found)
  if (!types.includes('object') || !isRecord(schema)) return
  const names = readFields(schema, reads)
  if (names.length > 0) found(path, names)
  for (const [name, part] of Object.entries(schema.properties ?? {})) {
    const below = reads === true ? true : reads.get(name)
    if (below !== undefined) visit(part, below, `${path}.${name}`, found)
  }
}

function indexesOf(from: Shaping): number {
  const address = from.reserve(INDEXES * NUMBER_BYTES)
  for (let index = 0; index < INDEXES; index++)
    from.set(address + NUMBER_BYTES * index, [TYPE.number | AS_INTEGER, 0, index, 0])
  return address
}

/** The shape of a module for inputs of this schema, of which these parts are read; undefined where it is unknown. */
export function findShape(from: Shaping, schema: Schema, reads: Reads): Shape | undefined {
  try {
    const records = new Map<string, RecordShape>()
    visit(schema, reads, '', (path, names) => records.set(path, recordShape(from, names)))
    const [none, yes, no] = [from.parse('null'), from.parse('true'), from.parse('false')]
    const [empty, emptyList] = [from.parse('{}'), from.parse('[]')]
    expect(typeAt(from, none) === TYPE.null, 'null')
    expect(typeAt(from, empty) === TYPE.object, 'an object')
    expect(typeAt(from, emptyList) === TYPE.array, 'a list')
    const { constants } = from
    return { none, yes, no, empty, emptyList, indexes: indexesOf(from), records, constants }
  } catch (error) {
    if (error instanceof Unknown) return undefined
    throw error
  }
}

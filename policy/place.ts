/**
 * An input set down in a module's memory as the values it works on, so that it has no text to parse. The
 * same checks, in the same order and with the same words, as of the text (encode.ts); what counts against
 * the limit is the text it would have been. What is as it was in the input before lies there still (kept.ts). Where the
 * module's shape is unknown nothing is placed.
 */
import { encodeOf, MAX_INPUT_BYTES, TOO_LONG } from './encode.ts'
import type { Encode } from './encode.ts'
import { PolicyError } from './errors.ts'
import { KEPT_ITEMS, Room } from './kept.ts'
import { Pen, placeNumber, placeString, putBlank, type Ground, type Place } from './pen.ts'
import { isPlain, numberCheck, stringCheck, typesOf, unknownKey } from './schema.ts'
import type { Schema } from './schema.ts'
import type { Reads } from './reads.ts'
import { simplePlace } from './scalar.ts'
import { INDEXES, isRecord, NUMBER_BYTES, TYPE } from './shape.ts'
import type { RecordShape, Shape } from './shape.ts'

/**
 * Bytes of memory that any input within the limit fits into. The costliest text is a list of numbers in
 * a dictionary: two bytes of text, and some 70 with what its growing list leaves behind.
 */
export const ROOM_BYTES = 2 * 1024 * 1024

const encoder = new TextEncoder()
const ARRAY_BYTES = 16
const ELEMENT_BYTES = 8

/** Where in the schema, what is read there, and what may stay there for the next input. */
interface Site {
  readonly reads: Reads
  readonly path: string
  readonly shape: Shape
  /** Undefined in a list, behind its first items. */
  readonly room: Room | undefined
}

function listPlace(schema: Schema, on: Site): Place {
  const { maxItems = Infinity } = schema
  if (maxItems > INDEXES) throw new Error(`a list longer than ${INDEXES}`)
  const { shape, room } = on
  const items = { ...on, path: `${on.path}[]` }
  const one = schema.items ?? { type: 'null' }
  const item = placeOf(one, { ...items, room: undefined })
  const first = Array.from({ length: room === undefined ? 0 : KEPT_ITEMS }, () =>
    placeOf(one, items),
  )
  return (value, pen) => {
    const list = value as readonly unknown[]
    const { length } = list
    if (length > maxItems) return pen.wrong(`: more than ${maxItems} items`)
    if (length === 0) {
      pen.size += 2
      return shape.emptyList
    }
    const { at, words } = pen
    words[at >> 2] = TYPE.array
    words[(at >> 2) + 1] = at + ARRAY_BYTES
    words[(at >> 2) + 2] = length
    words[(at >> 2) + 3] = length
    pen.at = at + ARRAY_BYTES + ELEMENT_BYTES * length
    // Brackets, and a comma between two items.
    pen.size += length + 1
    for (let index = 0; index < length; index++) {
      const place = index < first.length ? (first[index] ?? item) : item
      const placed = place(list[index], pen)
      if (placed === 0) return pen.wrong(`.${index}${pen.problem}`)
      if (pen.size > MAX_INPUT_BYTES) return pen.wrong(TOO_LONG)
      const element = (at + ARRAY_BYTES + ELEMENT_BYTES * index) >> 2
      words[element] = shape.indexes + NUMBER_BYTES * index
      words[element + 1] = placed
    }
    return at
  }
}

interface Field {
  readonly name: string
  readonly place: Place
  readonly nullable: boolean
  /** Word of the record its value is named in; -1 where no rule reads it. */
  readonly slot: number
}

/** Checked and counted, and left out: what is set down of it, the next value is set down over. */
function unread(schema: Schema, room: Room | undefined): Place {
  const place = simplePlace(schema, NOWHERE)
  if (place !== undefined && room !== undefined) return room.value(place, schema, false)
  if (place !== undefined)
    return (value, pen) => {
      const { at } = pen
      const placed = place(value, pen)
      pen.at = at
      return placed
    }
  const encode = encodeOf(schema, true)
  return (value, pen) => {
    const problem = textOf(encode, value, pen)
    return problem === undefined ? 1 : pen.wrong(problem)
  }
}

/** For scalars, which take nothing of a shape but that these are not 0. */
const NOWHERE: Shape = {
  none: 1,
  yes: 1,
  no: 1,
  empty: 1,
  emptyList: 1,
  indexes: 1,
  records: new Map(),
  constants: new Map(),
}

/** Writes a value on the pen's own page, and counts it. */
function textOf(encode: Encode, value: unknown, pen: Pen): string | undefined {
  const { page } = pen
  page.at = 0
  page.unread = 0
  page.repaired = false
  const problem = encode(value, page)
  pen.size += page.at + page.unread
  if (page.repaired) pen.repaired = true
  return problem
}

function fieldsOf(schema: Schema, on: Site): Field[] {
  const { reads, path, shape, room } = on
  const slots = shape.records.get(path)?.slots
  return Object.entries(schema.properties ?? {}).map(([name, part]) => {
    const below = reads === true ? true : reads.get(name)
    const slot = slots?.get(name) ?? -1
    if (below !== undefined && slot < 0) throw new Error(`${path}.${name} has no place`)
    const place =
      below === undefined
        ? unread(part, room)
        : placeOf(part, { ...on, reads: below, path: `${path}.${name}` })
    const nullable = typesOf(part).includes('null')
    return { name, place, nullable, slot: below === undefined ? -1 : slot }
  })
}

/** Places the value of one field of the record at `at`. */
function placeField(field: Field, part: unknown, at: number, none: number, pen: Pen): boolean {
  let placed = none
  if (part === null && field.nullable) pen.size += 4
  else placed = part === undefined ? pen.wrong(': absent') : field.place(part, pen)
  if (placed === 0) {
    pen.problem = `.${field.name}${pen.problem}`
    return false
  }
  if (field.slot >= 0) pen.words[(at >> 2) + field.slot] = placed
  return true
}

const BARE: RecordShape = { words: new Int32Array(0), relative: [], slots: new Map() }

function recordPlace(schema: Schema, on: Site): Place {
  const { path, shape, room } = on
  const { none } = shape
  const fields = fieldsOf(schema, on)
  const known = new Set(fields.map(({ name }) => name))
  // Each key as `,"name":`; the first comma that is written is the opening brace.
  const keys = fields.map(({ name }) => encoder.encode(`,${JSON.stringify(name)}:`).length)
  const braces = fields.some(({ slot }) => slot >= 0) ? 1 : 2
  const textBytes = keys.reduce((sum, bytes) => sum + bytes, braces)
  const blank = shape.records.get(path) ?? BARE
  const blankBytes = 4 * blank.words.length
  const stays = blankBytes === 0 ? undefined : room?.record(blank)
  const slowly = (object: Readonly<Record<string, unknown>>, at: number, pen: Pen): boolean => {
    for (const field of fields)
      if (!placeField(field, object[field.name], at, none, pen)) return false
    const own = Object.keys(object)
    if (own.length === fields.length) return true
    const extra = own.find((name) => !known.has(name))
    pen.wrong(extra === undefined ? ': an inherited key' : unknownKey(extra))
    return false
  }
  return (value, pen) => {
    const object = value as Readonly<Record<string, unknown>>
    if (!isPlain(object)) return pen.wrong(': not a plain object')
    const { size } = pen
    const at = stays ?? pen.at
    if (stays === undefined) {
      putBlank(blank, at, pen)
      pen.at = at + blankBytes
    }
    const begun = pen.at
    // Keys in the order of the schema, which is how `inputFor` makes them, are walked as they lie.
    let index = 0
    let other = !pen.clean
    if (pen.clean)
      for (const name in object) {
        const field = fields[index]
        other = field?.name !== name
        if (other || field === undefined) break
        if (!placeField(field, object[name], at, none, pen)) return 0
        index++
      }
    if (other || index < fields.length) {
      pen.at = begun
      pen.size = size
      if (!slowly(object, at, pen)) return 0
    }
    pen.size += textBytes
    return blankBytes === 0 ? shape.empty : at
  }
}

/** Any keys at all: the module hashes them itself, from text. */
function dictionaryPlace(schema: Schema, { reads, shape }: Site): Place {
  const encode = encodeOf({ ...schema, type: 'object' }, reads)
  return (value, pen) => {
    const problem = textOf(encode, value, pen)
    if (problem !== undefined) return pen.wrong(problem)
    const { page } = pen
    if (page.at === 2) return shape.empty
    if (pen.size > MAX_INPUT_BYTES) return pen.wrong(TOO_LONG)
    const placed = pen.ground.parse(page.bytes.subarray(0, page.at), pen.at)
    // Memory that has grown has moved, and what would be set down from here on is lost.
    if (pen.ground.memory.buffer !== pen.words.buffer)
      throw new PolicyError('module.eval', 'the memory moved under an input')
    pen.at = (placed.end + 3) & ~3
    return placed.value
  }
}

function placeOf(schema: Schema, on: Site): Place {
  const { shape, room } = on
  const simple = simplePlace(schema, shape)
  if (simple === undefined) return mixedPlace(schema, on)
  return room === undefined ? simple : room.value(simple, schema, true)
}

function mixedPlace(schema: Schema, on: Site): Place {
  const { shape } = on
  const types = typesOf(schema)
  const wanted = `: not ${types.join(' or ')}`
  const integer = types.includes('integer')
  const string = types.includes('string') ? stringCheck(schema) : undefined
  const number = integer || types.includes('number') ? numberCheck(schema, integer) : undefined
  const list = types.includes('array') ? listPlace(schema, on) : undefined
  const object = types.includes('object') ? objectPlace(schema, on) : undefined
  const [nothing, flag] = [types.includes('null'), types.includes('boolean')]
  return (value, pen) => {
    if (value === null) {
      if (!nothing) return pen.wrong(wanted)
      pen.size += 4
      return shape.none
    }
    if (typeof value === 'string') {
      const problem = string === undefined ? wanted : string(value)
      return problem === undefined ? placeString(value, pen) : pen.wrong(problem)
    }
    if (typeof value === 'number') {
      const problem = number === undefined ? wanted : number(value)
      return problem === undefined ? placeNumber(value, pen) : pen.wrong(problem)
    }
    if (typeof value === 'boolean') {
      if (!flag) return pen.wrong(wanted)
      pen.size += value ? 4 : 5
      return value ? shape.yes : shape.no
    }
    if (Array.isArray(value)) return list === undefined ? pen.wrong(wanted) : list(value, pen)
    if (typeof value !== 'object' || object === undefined) return pen.wrong(wanted)
    return object(value, pen)
  }
}

function objectPlace(schema: Schema, on: Site): Place {
  return isRecord(schema) ? recordPlace(schema, on) : dictionaryPlace(schema, on)
}

/** An input that lies in a module's memory. */
export interface Placed {
  readonly value: number
  /** The first free address after it. */
  readonly end: number
}

/** Places inputs of one schema, of which these parts are read, in one instance of a module. */
export class Placer {
  readonly #pen: Pen
  readonly #place: Place
  #placed: Placed | undefined

  /** Errors: a plain Error for a schema of another form than encode.ts takes, or that the shape is not of. */
  constructor(schema: Schema, reads: Reads, shape: Shape, ground: Ground) {
    this.#pen = new Pen(ground)
    const room = new Room(ground, this.#pen)
    this.#place = placeOf(schema, { reads, path: '', shape, room })
  }

  /** Checks, counts and places; the page gets the count, and no text. */
  readonly encode: Encode = (value, page) => {
    const pen = this.#pen
    this.#placed = undefined
    pen.begin()
    const root = this.#place(value, pen)
    page.at = pen.size
    page.unread = 0
    page.repaired = pen.repaired
    if (root === 0) return pen.problem
    this.#placed = { value: root, end: pen.at }
    return undefined
  }

  /** What `encode` placed last, once. Errors: a plain Error where that was refused, or has been taken. */
  take(): Placed {
    const placed = this.#placed
    this.#placed = undefined
    if (placed === undefined) throw new Error('nothing was placed')
    return placed
  }
}

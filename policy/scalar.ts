/** How strings, whole numbers and booleans are placed, with null or without: nearly every value of an input. place.ts. */
import { MAX_INPUT_BYTES, TOO_LONG } from './encode.ts'
import { placeNumber, placeString, type Place } from './pen.ts'
import { numberCheck, stringCheck, typesOf, type Schema } from './schema.ts'
import type { Shape } from './shape.ts'

/** One of a few words, of which the module has most among its constants. */
function wordPlace(schema: Schema, nullable: boolean, shape: Shape): Place {
  const place = textPlace(schema, nullable, shape)
  const check = stringCheck(schema)
  const known = new Map<unknown, number>()
  for (const word of schema.enum ?? []) {
    if (typeof word !== 'string' || !/^[\w.:-]+$/.test(word) || check(word) !== undefined) continue
    const address = shape.constants.get(word)
    if (address !== undefined) known.set(word, address)
  }
  return (value, pen) => {
    const address = known.get(value)
    if (address === undefined) return place(value, pen)
    pen.size += String(value).length + 2
    return pen.size > MAX_INPUT_BYTES ? pen.wrong(TOO_LONG) : address
  }
}

/** Strings, or strings and null: most of what an input holds. */
function stringPlace(schema: Schema, nullable: boolean, shape: Shape): Place {
  const place = schema.enum === undefined ? textPlace : wordPlace
  return place(schema, nullable, shape)
}

function textPlace(schema: Schema, nullable: boolean, { none }: Shape): Place {
  const check = stringCheck(schema)
  const wanted = `: not ${typesOf(schema).join(' or ')}`
  return (value, pen) => {
    if (typeof value === 'string') {
      const problem = check(value)
      return problem === undefined ? placeString(value, pen) : pen.wrong(problem)
    }
    if (value !== null || !nullable) return pen.wrong(wanted)
    pen.size += 4
    return none
  }
}

/** Integers, or integers and null. */
function integerPlace(schema: Schema, nullable: boolean, { none }: Shape): Place {
  const check = numberCheck(schema, true)
  const wanted = `: not ${typesOf(schema).join(' or ')}`
  return (value, pen) => {
    if (typeof value === 'number') {
      const problem = check(value)
      return problem === undefined ? placeNumber(value, pen) : pen.wrong(problem)
    }
    if (value !== null || !nullable) return pen.wrong(wanted)
    pen.size += 4
    return none
  }
}

/** Booleans, or booleans and null. */
function flagPlace(schema: Schema, nullable: boolean, { none, yes, no }: Shape): Place {
  const wanted = `: not ${typesOf(schema).join(' or ')}`
  return (value, pen) => {
    if (value !== true && value !== false && (value !== null || !nullable)) return pen.wrong(wanted)
    pen.size += value === false ? 5 : 4
    if (value === null) return none
    return value ? yes : no
  }
}

const SIMPLE = { string: stringPlace, integer: integerPlace, boolean: flagPlace }

/** The place of a scalar of one kind, with null or without, which is nearly every one. */
export function simplePlace(schema: Schema, shape: Shape): Place | undefined {
  const [kind, ...others] = typesOf(schema).filter((type) => type !== 'null')
  const nullable = typesOf(schema).includes('null')
  return (kind === 'string' || kind === 'integer' || kind === 'boolean') && others.length === 0
    ? SIMPLE[kind](schema, nullable, shape)
    : undefined
}

/**
 * What stays where it is from one input to the next, because most of what is asked was asked the time before: records, of
 * which only the addresses of their values are set anew, and single values, which are checked and set down only where
 * they are others than those that lie there. Only a value that `===` tells from every other is ever kept, and never an
 * object, whose parts may have changed.
 */
import { putBlank, STRING_BYTES, type Ground, type Pen, type Place } from './pen.ts'
import { typesOf, type Schema } from './schema.ts'
import { NUMBER_BYTES, type RecordShape } from './shape.ts'

/** Of a list, so many values are kept; most lists have one or two. */
export const KEPT_ITEMS = 2
/** Characters of the longest text that is kept: a digest, and somewhat more. */
const LONGEST = 72
/** Most bytes of a character in UTF-8, for each unit of UTF-16. */
const UTF8 = 3

/** What no value is. */
const NOTHING = Symbol('nothing')

/** Room in one instance, in front of what every input sets down anew. */
export class Room {
  readonly #ground: Ground
  readonly #pen: Pen

  constructor(ground: Ground, pen: Pen) {
    this.#ground = ground
    this.#pen = pen
  }

  /** The address of a record that stays. */
  record(shape: RecordShape): number {
    const at = this.#ground.reserve(4 * shape.words.length)
    putBlank(shape, at, this.#pen)
    return at
  }

  /** The same place for a value of one kind, which remembers what it was; `read`: whether it has to lie anywhere. */
  value(place: Place, schema: Schema, read: boolean): Place {
    const longest = Math.min(schema.maxLength ?? LONGEST, LONGEST)
    const text = typesOf(schema).includes('string')
    const bytes = text ? (STRING_BYTES + UTF8 * longest + 3) & ~3 : NUMBER_BYTES
    return keeping(place, longest, read ? this.#ground.reserve(bytes) : 0)
  }
}

/** `cell`: where it is set down; 0: behind what the input has set down by then, as where nobody reads it. */
function keeping(place: Place, longest: number, cell: number): Place {
  let last: unknown = NOTHING
  let address = 0
  let size = 0
  return (value, pen) => {
    if (value === last) {
      pen.size += size
      return address
    }
    if (typeof value === 'string' && value.length > longest) return place(value, pen)
    const { at, size: before } = pen
    last = NOTHING
    if (cell > 0) pen.at = cell
    const placed = place(value, pen)
    pen.at = at
    // One that was made well-formed has to be noticed again.
    if (placed === 0 || pen.repaired) return placed
    last = value
    address = placed
    size = pen.size - before
    return placed
  }
}

/**
 * Lists in pages. A cursor says behind which row the next page begins, by what the list is ordered by, so that rows which
 * come in meanwhile move none of those that were there: none is shown twice, none is left out.
 */
import { Type, type TSchema } from 'typebox'
import { Refusal } from '../problem.ts'

/** What a list is ordered by, the least telling last. */
export type Key = readonly (string | number)[]
export interface PageQuery {
  readonly after?: string
  readonly limit?: number
}
export interface PageOf<T> {
  readonly items: T[]
  /** `after` of the page that follows; null: there is none. */
  readonly next: string | null
}

export const USUAL = 100

/** Schema of a page of `item`. */
export function pageOf<S extends TSchema>(item: S) {
  return Type.Object({
    items: Type.Array(item),
    next: Type.Union([Type.String(), Type.Null()]),
  })
}

/** `list` names the list and what it is narrowed to: a cursor is good for no other. */
export function writeCursor(list: string, key: Key): string {
  return Buffer.from(JSON.stringify([list, ...key])).toString('base64url')
}

/**
 * The key behind which a page begins, of the types of `shape`; undefined: at the beginning. Throws Refusal
 * `cursor.invalid`: not of this list, or of no list.
 */
export function readCursor<K extends Key>(
  list: string,
  shape: K,
  { after }: PageQuery,
): K | undefined {
  if (after === undefined || after === '') return undefined
  const [named, ...key] = parse(after)
  const fits =
    key.length === shape.length && shape.every((one, at) => typeof one === typeof key[at])
  if (named !== list || !fits)
    throw new Refusal('cursor.invalid', 'this list gave no such cursor', {
      nextStep: 'begin again without `after`, and give back `next` as it came',
    })
  return key as unknown as K
}

function parse(cursor: string): readonly unknown[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    return Array.isArray(value) ? value : []
  } catch {
    return []
  }
}

/** A page of rows of which one more than `limit` was asked for. */
export function page<T>(
  list: string,
  rows: readonly T[],
  { limit = USUAL }: PageQuery,
  keyOf: (row: T) => Key,
): PageOf<T> {
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  const more = rows.length > limit && last !== undefined
  return { items, next: more ? writeCursor(list, keyOf(last)) : null }
}

/** A page of a list that is small enough to be had whole, in the order of its keys, up or down. */
export function pageIn<T>(
  list: string,
  rows: readonly T[],
  query: PageQuery,
  keyOf: (row: T) => Key,
  order: 'up' | 'down' = 'up',
): PageOf<T> {
  const sign = order === 'up' ? 1 : -1
  const sorted = rows.toSorted((a, b) => sign * compare(keyOf(a), keyOf(b)))
  const [first] = sorted
  const after = first === undefined ? undefined : readCursor(list, keyOf(first), query)
  const rest =
    after === undefined ? sorted : sorted.filter((row) => sign * compare(keyOf(row), after) > 0)
  return page(list, rest, query, keyOf)
}

function compare(a: Key, b: Key): number {
  for (const [at, one] of a.entries()) {
    const other = b[at]
    if (other === undefined || one > other) return 1
    if (one < other) return -1
  }
  return 0
}

/** Hashes of Redis as rows: fields and values in a row, dates in decimal, bytes base64, null left out. */
import type { Instant } from '#ca'

export type Fields = ReadonlyMap<string, string>

/** A reply that must be a list. Throws TypeError. */
export function lists(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new TypeError('Redis gave no list')
  return value
}
/** A list of texts. Throws TypeError. */
export function strings(value: unknown): string[] {
  return lists(value).map(String)
}
/** What HGETALL gives, by name; empty where there is no such hash. Throws TypeError. */
export function fieldsOf(value: unknown): Fields {
  const list = strings(value)
  const fields = new Map<string, string>()
  for (let at = 0; at + 1 < list.length; at += 2) fields.set(list[at] ?? '', list[at + 1] ?? '')
  return fields
}
/** A field that must be there. Throws TypeError. */
export function text(fields: Fields, name: string): string {
  const value = fields.get(name)
  if (value === undefined) throw new TypeError(`Redis: field ${name} is absent`)
  return value
}
/** A date that must be there. Throws TypeError. */
export function date(fields: Fields, name: string): Instant {
  return number(fields, name) as Instant
}
/** A whole number that must be there: a count, octets, epoch seconds. Throws TypeError. */
export function number(fields: Fields, name: string): number {
  const value = Number(text(fields, name))
  if (!Number.isSafeInteger(value)) throw new TypeError(`Redis: field ${name} holds no number`)
  return value
}
export function numberOrNull(fields: Fields, name: string): number | null {
  return fields.has(name) ? number(fields, name) : null
}
export function dateOrNull(fields: Fields, name: string): Instant | null {
  return fields.has(name) ? date(fields, name) : null
}
/** Base64 that must be there. Throws TypeError, SyntaxError. */
export function bytes(fields: Fields, name: string): Uint8Array {
  return Uint8Array.fromBase64(text(fields, name))
}

/** Fields and values in a row; null is left out. */
export function flatten(row: object): string[] {
  return Object.entries(row).flatMap(
    ([name, value]: [string, string | number | Uint8Array | null]) => {
      if (value === null) return []
      return [name, value instanceof Uint8Array ? value.toBase64() : String(value)]
    },
  )
}

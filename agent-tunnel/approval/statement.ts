/**
 * The statement of a grant: what was asked, frozen. Its canonical bytes are what is hashed and signed, so a
 * changed statement is another one.
 */
import { createHash } from 'node:crypto'

/** What the requester asks for and approvers approve. Instants are epoch seconds. */
export interface Statement {
  readonly v: 1
  readonly id: string
  readonly tenant: string
  readonly requester: string
  readonly vendor: string | null
  readonly devices: readonly string[]
  readonly processes: readonly string[]
  readonly ot_level: number
  readonly not_before: number
  readonly not_after: number
  readonly max_duration_s: number
  readonly reason: string
  readonly ticket: string | null
  readonly created_at: number
}

/** The bytes that are hashed and approved, as text: RFC 8785 for values that are strings and integers. */
export function canonical(value: object): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  )
}

/** SHA-256 of the canonical statement, hex. */
export function hashOf(statement: Statement): string {
  return createHash('sha256').update(canonical(statement)).digest('hex')
}

const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 2000 && value.isWellFormed()
const isTextOrNull = (value: unknown): boolean => value === null || isText(value)
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0
const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.length >= 1 && value.length <= 64 && value.every(isText)

/** Each member and what it must be: a statement has these and no others, for what is not read is not known. */
const MEMBERS: Readonly<Record<keyof Statement, (value: unknown) => boolean>> = {
  v: (value) => value === 1,
  id: isText,
  tenant: isText,
  requester: isText,
  vendor: isTextOrNull,
  devices: isNames,
  processes: isNames,
  ot_level: (value) => value === 0 || value === 1 || value === 2,
  not_before: isCount,
  not_after: isCount,
  max_duration_s: isCount,
  reason: isText,
  ticket: isTextOrNull,
  created_at: isCount,
}

/** The statement in `value` (parsed JSON), or undefined for anything that is not exactly one of version 1. */
export function readStatement(value: unknown): Statement | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const rows = Object.entries(MEMBERS)
  if (Object.keys(value).length !== rows.length) return undefined
  const members = new Map<string, unknown>(Object.entries(value))
  return rows.every(([name, is]) => members.has(name) && is(members.get(name)))
    ? (value as Statement)
    : undefined
}

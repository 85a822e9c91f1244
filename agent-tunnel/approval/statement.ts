/**
 * The statement of a grant: what was asked, frozen. Its canonical bytes are what is hashed and signed, so a
 * changed statement is another one.
 */
import { createHash } from 'node:crypto'
import { isRecurrence, type Recurrence } from './recurrence.ts'

/** Addresses `from`..`to` of one Modbus unit, both inclusive, coils and registers alike. */
export interface AddressWindow {
  readonly unit: number
  readonly from: number
  readonly to: number
}

/** Another grant, and exactly the statement of it that was seen. */
export interface GrantRef {
  readonly grant: string
  /** SHA-256 of its canonical statement, hex. */
  readonly sha256: string
}

/** So many people break it: 2 to `MOST_OPENERS`. */
export interface Seal {
  readonly quorum: number
}

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
  /** The addresses it is for, at least one; absent: it names none. */
  readonly ot_windows?: readonly AddressWindow[]
  readonly not_before: number
  readonly not_after: number
  readonly max_duration_s: number
  /** Of its window, the hours of some days alone; absent: all of it. */
  readonly recurring?: Recurrence
  /** How many sessions may be opened under it, at least one; absent: any number. */
  readonly max_uses?: number
  /** How many octets all its sessions together may carry, both ways; absent: it states no limit. */
  readonly max_bytes?: number
  readonly reason: string
  readonly ticket: string | null
  readonly created_at: number
  /** It makes that grant last longer, in whose place its own window and duration hold; it opens nothing by itself. */
  readonly extends?: GrantRef
  /** That grant ends when this one is approved. */
  readonly supersedes?: GrantRef
  /** It opens nothing until so many people, none its holder, have signed a statement that unseals it. */
  readonly sealed?: Seal
  /** It breaks the seal of that grant, in whose place it is used. */
  readonly unseals?: GrantRef
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
const isWithin = (least: number, most: number) => (value: unknown) =>
  Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most
/** What a grant may limit itself to: more is no limit that anybody would notice. */
export const MOST_USES = 1000
export const MOST_BYTES = 64 * 1024 ** 3

/** So many windows one grant may name: their text stands in an OPEN of 4 KiB. */
export const MOST_WINDOWS = 16

function isWindow(value: unknown): value is AddressWindow {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 3) return false
  const { unit, from, to } = value as Partial<Record<keyof AddressWindow, unknown>>
  const isAddress = (at: unknown): at is number =>
    Number.isSafeInteger(at) && Number(at) >= 0 && Number(at) <= 65_535
  if (!Number.isSafeInteger(unit) || !isAddress(from) || !isAddress(to)) return false
  // 1 to 247 are units of a serial line, 255 is a device that needs no number; 0 is every unit at once.
  return ((Number(unit) >= 1 && Number(unit) <= 247) || unit === 255) && from <= to
}

/** Whether it is a list of windows as a statement may name them: 1 to 16, none of unit 0. */
export function areWindows(value: unknown): value is readonly AddressWindow[] {
  return (
    Array.isArray(value) &&
    value.length >= 1 &&
    value.length <= MOST_WINDOWS &&
    value.every((one) => isWindow(one))
  )
}

/** For people who must judge them: `unit 1, registers and coils 0–9; unit 2, register or coil 5`. */
export function windowsInWords(windows: readonly AddressWindow[]): string {
  return windows
    .map(({ unit, from, to }) =>
      from === to
        ? `unit ${unit}, register or coil ${from}`
        : `unit ${unit}, registers and coils ${from}–${to}`,
    )
    .join('; ')
}

const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.length >= 1 && value.length <= 64 && value.every(isText)

function isRef(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 2) return false
  const { grant, sha256 } = value as Partial<Record<keyof GrantRef, unknown>>
  return isText(grant) && typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256)
}

export const MOST_OPENERS = 8

function isSeal(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 1) return false
  return isWithin(2, MOST_OPENERS)((value as Partial<Record<keyof Seal, unknown>>).quorum)
}

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
  // Only where it is there: a statement without it reads, and hashes, as one did before there were any.
  ot_windows: areWindows,
  not_before: isCount,
  not_after: isCount,
  max_duration_s: isCount,
  recurring: isRecurrence,
  max_uses: isWithin(1, MOST_USES),
  max_bytes: isWithin(1, MOST_BYTES),
  reason: isText,
  ticket: isTextOrNull,
  created_at: isCount,
  extends: isRef,
  supersedes: isRef,
  sealed: isSeal,
  unseals: isRef,
}

const OPTIONAL: ReadonlySet<string> = new Set<keyof Statement>([
  'ot_windows',
  'recurring',
  'max_uses',
  'max_bytes',
  'extends',
  'supersedes',
  'sealed',
  'unseals',
])

/** The statement in `value` (parsed JSON), or undefined for anything that is not exactly one of version 1. */
export function readStatement(value: unknown): Statement | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const members = new Map<string, unknown>(Object.entries(value))
  const rows = Object.entries(MEMBERS).filter(([name]) => members.has(name) || !OPTIONAL.has(name))
  if (members.size !== rows.length) return undefined
  return rows.every(([name, is]) => members.has(name) && is(members.get(name)))
    ? (value as Statement)
    : undefined
}

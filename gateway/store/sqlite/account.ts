/** Rows of SQLite as they are read, and what the table of accounts holds. */
import type { AccountRow } from '../../identity/store.ts'

export type Row = Record<string, unknown>

/** A text, or undefined for anything else. */
export const text = (row: Row | undefined, column: string): string | undefined => {
  const value = row?.[column]
  return typeof value === 'string' ? value : undefined
}
/** A number, or 0 for anything else. */
export const number = (row: Row | undefined, column: string): number => {
  const value = row?.[column]
  return typeof value === 'number' ? value : 0
}

/** The account in the column `row`; undefined where there is no such row. */
export function account(row: Row | undefined): AccountRow | undefined {
  const json = text(row, 'row')
  if (json === undefined) return undefined
  const kept = JSON.parse(json) as Omit<AccountRow, 'outside' | 'person'> & Partial<AccountRow>
  // Rows older than companies' providers name neither.
  return { ...kept, outside: kept.outside ?? null, person: kept.person ?? kept.sub }
}

/** What a file has of people, all of it at once: read when the node comes to share them with other gateways. */
import type { DatabaseSync } from 'node:sqlite'
import type { AccountRow, PasskeyRow } from '../../identity/store.ts'
import type { TotpRow } from '../../identity/totp/store.ts'
import { account, number, text, type Row } from './account.ts'
import type { SqliteThread } from './thread.ts'

/** Everybody and their second factors, as they go over to a store that gateways share. */
export interface PeopleOfFile {
  /** `mail`: the address it holds; `idp`: whether a provider of a company stands behind it. */
  readonly accounts: readonly { readonly row: AccountRow; mail: string; idp: boolean }[]
  readonly passkeys: readonly PasskeyRow[]
  readonly totps: readonly TotpRow[]
  readonly throttles: readonly { readonly key: string; count: number; until: number }[]
  /** Whether a bootstrap token was used. */
  readonly spent: boolean
}

/** An operation of room `identity`. */
export function belongings(db: DatabaseSync, _: null): PeopleOfFile {
  const all = (sql: string): Row[] => db.prepare(sql).all()
  const rows = <T>(sql: string): T[] =>
    all(sql).map((row) => JSON.parse(text(row, 'row') ?? '') as T)
  return {
    accounts: all('SELECT row, email, idp FROM account ORDER BY sub').flatMap((row) => {
      const found = account(row)
      if (found === undefined) return []
      return [{ row: found, mail: text(row, 'email') ?? '', idp: text(row, 'idp') !== undefined }]
    }),
    passkeys: rows<PasskeyRow>('SELECT row FROM passkey'),
    totps: rows<TotpRow>('SELECT row FROM totp'),
    throttles: all('SELECT key, count, until FROM throttle').map((row) => ({
      key: text(row, 'key') ?? '',
      count: number(row, 'count'),
      until: number(row, 'until'),
    })),
    spent: number(db.prepare('SELECT spent FROM bootstrap').get(), 'spent') === 1,
  }
}

/** What a file has of people. Rejects with StoreError. */
export async function peopleOfFile(thread: SqliteThread): Promise<PeopleOfFile> {
  return await thread.call('identity', 'belongings', null)
}

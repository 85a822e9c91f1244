/** Passkeys (identity/store.ts) and authenticator apps (identity/totp/store.ts) in Redis; factoring.ts has the transactions. */
import type { SecondFactors } from '../../identity/attempt.ts'
import { mayAdd } from '../../identity/passkeys/credential.ts'
import type { FactorBy, PasskeyRow, PasskeyStore } from '../../identity/store.ts'
import type { TotpRow, TotpStore } from '../../identity/totp/store.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, numberOrNull, text, type Fields } from './row.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

const HELD: readonly SecondFactors[] = [
  { passkey: false, code: false },
  { passkey: true, code: false },
  { passkey: false, code: true },
  { passkey: true, code: true },
]

/** What `mayAdd` says to each that may be there by then: what is there only the transaction knows. */
const mayOf = ({ shown }: FactorBy): string =>
  HELD.map((held) => (mayAdd(held, shown) ? '1' : '0')).join('')

const optionally = (name: string, value: number | null): string[] =>
  value === null ? [] : [name, String(value)]

/** A passkey that is added: fields and values in a row. */
export function passkeyFields({ counter, usedAt, ...row }: PasskeyRow): string[] {
  const { id, sub, createdAt } = row
  const found = ['id', id, 'sub', sub, 'createdAt', String(createdAt), 'counter', String(counter)]
  return [...found, ...optionally('usedAt', usedAt), 'row', JSON.stringify(row)]
}

function passkeyOf(fields: Fields): PasskeyRow {
  const row = JSON.parse(text(fields, 'row')) as Omit<PasskeyRow, 'counter' | 'usedAt'>
  return { ...row, counter: number(fields, 'counter'), usedAt: numberOrNull(fields, 'usedAt') }
}

/** Rejects with StoreError. */
export class RedisPasskeyStore implements PasskeyStore {
  readonly #redis: Commands
  constructor(redis: Commands) {
    this.#redis = redis
  }
  async addPasskey(
    row: PasskeyRow,
    most: number,
    by: FactorBy,
  ): Promise<'added' | 'exists' | 'full' | 'ended' | 'moved'> {
    const args = [by.login, mayOf(by), String(most), ...passkeyFields(row)]
    const said = String(await this.#redis.write('addPasskey', ...args))
    return said as 'added' | 'exists' | 'full' | 'ended' | 'moved'
  }
  async findPasskey(id: string): Promise<PasskeyRow | undefined> {
    const fields = fieldsOf(await this.#redis.read('findPasskey', id))
    return fields.size === 0 ? undefined : passkeyOf(fields)
  }
  async passkeysOf(sub: string): Promise<readonly PasskeyRow[]> {
    const rows = lists(await this.#redis.read('passkeysOf', sub))
    return rows.map((row) => passkeyOf(fieldsOf(row)))
  }
  async usePasskey(id: string, counter: number, at: number): Promise<boolean> {
    return (await this.#redis.write('usePasskey', id, String(counter), String(at))) === 1
  }
  async removePasskey(
    sub: string,
    id: string,
    least: number,
  ): Promise<'removed' | 'unknown' | 'last'> {
    const said = String(await this.#redis.write('removePasskey', sub, id, String(least)))
    return said as 'removed' | 'unknown' | 'last'
  }
}

/** An authenticator app: fields and values in a row. */
export function totpFields({ step, usedAt, ...row }: TotpRow): string[] {
  const found = ['sub', row.sub, 'createdAt', String(row.createdAt), 'step', String(step)]
  return [...found, ...optionally('usedAt', usedAt), 'row', JSON.stringify(row)]
}

/** Rejects with StoreError. */
export class RedisTotpStore implements TotpStore {
  readonly #redis: Commands
  constructor(redis: Commands) {
    this.#redis = redis
  }
  async findTotp(sub: string): Promise<TotpRow | undefined> {
    const fields = fieldsOf(await this.#redis.read('findTotp', sub))
    if (fields.size === 0) return undefined
    const row = JSON.parse(text(fields, 'row')) as Omit<TotpRow, 'step' | 'usedAt'>
    return { ...row, step: number(fields, 'step'), usedAt: numberOrNull(fields, 'usedAt') }
  }
  async putTotp(
    row: TotpRow,
    replaces: number | null,
    by: FactorBy,
  ): Promise<'added' | 'moved' | 'ended'> {
    const args = [by.login, mayOf(by), replaces === null ? '' : String(replaces)]
    const said = String(await this.#redis.write('putTotp', ...args, ...totpFields(row)))
    return said as 'added' | 'moved' | 'ended'
  }
  async useTotp(sub: string, createdAt: number, step: number, at: number): Promise<boolean> {
    const args = [createdAt, step, at].map(String)
    return (await this.#redis.write('useTotp', sub, ...args)) === 1
  }
  async removeTotp(sub: string): Promise<boolean> {
    return (await this.#redis.write('removeTotp', sub)) === 1
  }
}

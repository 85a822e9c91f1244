/** Accounts, attempts and the bootstrap token (identity/store.ts) in Redis; peopling.ts has the transactions. */
import { createHash } from 'node:crypto'
import type {
  AccountFields,
  AccountRow,
  ChangeOutcome,
  IdentityStore,
  OnlyIf,
  Outside,
  Throttle,
  ThrottleAnswer,
} from '../../identity/store.ts'
import type { Party } from '../../identity/subject.ts'
import { outsideKey } from '../sqlite/idps.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, strings, text, type Fields } from './row.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

/** What is kept of some fields; null is none, so it is named among those to remove. */
function kept(
  row: Partial<AccountRow>,
  idp: boolean,
): { readonly sets: string[]; readonly dels: string[] } {
  const { outside, ...plain } = row
  const sets: string[] = []
  const dels: string[] = []
  for (const [name, value] of Object.entries(plain))
    if (value === null) dels.push(name)
    else if (typeof value === 'boolean') sets.push(name, value ? '1' : '0')
    else sets.push(name, typeof value === 'object' ? JSON.stringify(value) : String(value))
  if (outside !== undefined && outside !== null) {
    sets.push('outside', JSON.stringify(outside))
    if (idp) sets.push('outsideKey', outsideKey(outside), 'idp', outside.idp)
  }
  return { sets, dels }
}

/** An account that is made: fields and values in a row; `idp` is whether its company's provider still stands behind one from outside. */
export function accountFields(row: AccountRow, idp = true): string[] {
  return kept(row, idp).sets
}

function accountOf(fields: Fields): AccountRow {
  const outside = fields.get('outside')
  return {
    sub: text(fields, 'sub'),
    email: text(fields, 'email'),
    name: text(fields, 'name'),
    party: text(fields, 'party') as Party,
    vendor: fields.get('vendor') ?? null,
    groups: JSON.parse(text(fields, 'groups')) as string[],
    roles: JSON.parse(text(fields, 'roles')) as string[],
    disabled: text(fields, 'disabled') !== '0',
    password: fields.get('password') ?? null,
    outside: outside === undefined ? null : (JSON.parse(outside) as Outside),
    person: text(fields, 'person'),
    createdAt: number(fields, 'createdAt'),
    changedAt: number(fields, 'changedAt'),
  }
}

function optional(value: unknown): AccountRow | undefined {
  const fields = fieldsOf(value)
  return fields.size === 0 ? undefined : accountOf(fields)
}

/** A counter names an address and where it came from: neither is the name of a key. */
export const counterOf = (key: string): string =>
  createHash('sha256').update(key).digest('base64url')

/** Rejects with StoreError. */
export class RedisIdentityStore implements IdentityStore {
  readonly #redis: Commands
  readonly #gateway: string
  /** `gateway` is whose bootstrap token this one opens. */
  constructor(redis: Commands, gateway: string) {
    this.#redis = redis
    this.#gateway = gateway
  }
  async addAccount(row: AccountRow): Promise<boolean> {
    return (await this.#redis.write('addAccount', ...accountFields(row))) === 1
  }
  async findAccount(sub: string): Promise<AccountRow | undefined> {
    return optional(await this.#redis.read('findAccount', sub))
  }
  async findAccountByEmail(email: string): Promise<AccountRow | undefined> {
    return optional(await this.#redis.read('findAccountBy', 'accountmails', email))
  }
  async findAccountByOutside(outside: Outside): Promise<AccountRow | undefined> {
    const key = outsideKey(outside)
    return optional(await this.#redis.read('findAccountBy', 'accountsoutside', key))
  }
  async listAccounts(after: string, limit: number): Promise<readonly AccountRow[]> {
    const rows = lists(await this.#redis.read('listAccounts', after, String(limit)))
    return rows.flatMap((row) => optional(row) ?? [])
  }
  async changeAccount(
    { sub, changedAt, ...change }: AccountFields,
    { enabled, changedAt: expected }: OnlyIf = {},
  ): Promise<ChangeOutcome> {
    const { sets, dels } = kept(change, false)
    const only = [enabled === true ? '1' : '', expected === undefined ? '' : String(expected)]
    const count = String(sets.length / 2)
    const args = [sub, String(changedAt), ...only, count, ...sets, ...dels]
    return String(await this.#redis.write('changeAccount', ...args)) as ChangeOutcome
  }
  async take(throttles: readonly Throttle[], now: number): Promise<ThrottleAnswer> {
    const counters = throttles.flatMap(({ key, limit, windowMs }) => [
      counterOf(key),
      String(limit),
      String(windowMs),
    ])
    const said = await this.#redis.write('takeAttempts', String(now), ...counters)
    const [allowed, wait] = strings(said)
    return { allowed: allowed === '1', retryAfterMs: Number(wait) }
  }
  async settle(forget: readonly string[], giveBack: readonly string[]): Promise<void> {
    const keys = [...forget, ...giveBack].map(counterOf)
    await this.#redis.write('settleAttempts', String(forget.length), ...keys)
  }
  async bootstrapHash(preferred = ''): Promise<string | undefined> {
    const found = await this.#redis.read('bootstrapHash', this.#gateway, preferred)
    return typeof found === 'string' ? found : undefined
  }
  async openBootstrap(hash: string): Promise<boolean> {
    return (await this.#redis.write('openBootstrap', this.#gateway, hash)) === 1
  }
  async redeemBootstrap(hash: string, row: AccountRow): Promise<'redeemed' | 'invalid' | 'spent'> {
    const said = await this.#redis.write('redeemBootstrap', hash, ...accountFields(row))
    return String(said) as 'redeemed' | 'invalid' | 'spent'
  }
}

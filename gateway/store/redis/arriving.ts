/**
 * Companies and invitations that a gateway keeps in its own file, while the people they bring are shared: what they do to
 * people is one script, behind the prelude of people (peopling.ts), and what they do to the file comes before or behind it.
 */
import type {
  AccountRow,
  IdpStore,
  InvitationPlace,
  InvitationRow,
  InvitationStore,
  PasskeyRow,
} from '../../identity/store.ts'
import { SqliteIdpStore } from '../sqlite/idps.ts'
import { SqliteInvitationStore } from '../sqlite/invitations.ts'
import type { SqliteThread } from '../sqlite/thread.ts'
import type { RedisConnection } from './connection.ts'
import { passkeyFields } from './factors.ts'
import { accountFields } from './people.ts'
import { strings } from './row.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

/** ARGV: how many of these are the account's, its fields and values, those of a passkey. */
const joinGuest = `
local last = 1 + tonumber(ARGV[1])
local passkey = { unpack(ARGV, last + 1) }
if #passkey > 0 and is_passkey(fields(passkey).id) then return 'exists' end
if not add_account({ unpack(ARGV, 2, last) }) then return 'taken' end
if #passkey > 0 then add_passkey(passkey) end
return 'redeemed'
`

/** ARGV: sub, at, password or '', fields and values of a passkey. The old ways in are gone with it, and who is in is out. */
const renewPerson = `
local sub, passkey = ARGV[1], { unpack(ARGV, 4) }
if redis.call('EXISTS', P .. 'account:' .. sub) == 0 or redis.call('HEXISTS', P .. 'account:' .. sub, 'outside') == 1 then return 'gone' end
if #passkey > 0 and is_passkey(fields(passkey).id, sub) then return 'exists' end
local sets = ARGV[3] ~= '' and { 'password', ARGV[3] } or {}
local dels = ARGV[3] == '' and { 'password' } or {}
if change_account(sub, ARGV[2], '1', '', sets, dels) ~= 'changed' then return 'gone' end
remove_passkeys(sub)
remove_totp(sub)
end_logins_of(sub)
if #passkey > 0 then add_passkey(passkey) end
return 'renewed'
`

export const arrivingScripts = { joinGuest, renewPerson } as const

/** Companies in the file, their people in Redis. Rejects with StoreError. */
export class FiledIdpStore extends SqliteIdpStore implements IdpStore {
  readonly #redis: Commands
  constructor(thread: SqliteThread, redis: Commands) {
    super(thread)
    this.#redis = redis
  }
  /** Its people first: a company that is still there is removed again, one that is gone could leave them behind. */
  override async removeIdp(id: string, now: number): Promise<readonly string[]> {
    const people = strings(await this.#redis.write('retirePeople', id, String(now)))
    await super.removeIdp(id, now)
    return people
  }
  override async accountsOfIdp(id: string): Promise<readonly string[]> {
    return strings(await this.#redis.read('accountsOfIdp', id))
  }
}

/** Invitations in the file, who comes of them in Redis: one act after the other, for a link is good once. Rejects with StoreError. */
export class FiledInvitationStore implements InvitationStore {
  readonly #own: SqliteInvitationStore
  readonly #thread: SqliteThread
  readonly #redis: Commands
  #turn: Promise<unknown> = Promise.resolve()
  constructor(thread: SqliteThread, redis: Commands) {
    this.#own = new SqliteInvitationStore(thread, 'elsewhere')
    this.#thread = thread
    this.#redis = redis
  }
  #next<T>(act: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(act, act)
    this.#turn = mine.catch(() => undefined)
    return mine
  }
  async #hasAccount(email: string): Promise<boolean> {
    const found = await this.#redis.read('findAccountBy', 'accountmails', email)
    return strings(found).length > 0
  }
  async isTaken(email: string, now: number): Promise<boolean> {
    return (await this.#hasAccount(email)) || (await this.#own.isTaken(email, now))
  }
  async standingInvitations(now: number): Promise<number> {
    return await this.#own.standingInvitations(now)
  }
  async addInvitation(row: InvitationRow, most: number): Promise<'added' | 'exists' | 'full'> {
    if (!row.renews && (await this.#hasAccount(row.email))) return 'exists'
    return await this.#own.addInvitation(row, most)
  }
  async findInvitation(
    key: { readonly id: string } | { readonly hash: string },
  ): Promise<InvitationRow | undefined> {
    return await this.#own.findInvitation(key)
  }
  async listInvitations(limit: number, after?: InvitationPlace): Promise<readonly InvitationRow[]> {
    return await this.#own.listInvitations(limit, after)
  }
  async closeInvitation(id: string, at: number): Promise<InvitationRow | undefined> {
    return await this.#next(async () => await this.#own.closeInvitation(id, at))
  }
  async #standing(hash: string, renews: boolean, at: number): Promise<InvitationRow | undefined> {
    const row = await this.#own.findInvitation({ hash })
    const open = row?.closed === null && row.expiresAt > at && row.renews === renews
    return open ? row : undefined
  }
  /** The account first, whose sub and address can be taken once: a link that a crash leaves open opens nothing more. */
  async redeemInvitation(
    hash: string,
    account: AccountRow,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'redeemed' | 'closed' | 'taken' | 'exists'> {
    return await this.#next(async () => {
      const row = await this.#standing(hash, false, at)
      if (row === undefined) return 'closed'
      const made = accountFields(account)
      const shown = passkey === null ? [] : passkeyFields(passkey)
      const args = [String(made.length), ...made, ...shown]
      const said = String(await this.#redis.write('joinGuest', ...args))
      if (said !== 'redeemed') return said as 'taken' | 'exists'
      await this.#thread.call('invitations', 'spendInvitation', { id: row.id, at })
      return 'redeemed'
    })
  }
  /** The link first, which could be used again otherwise: where nobody knows what came of it, it is spent. */
  async renewAccount(
    hash: string,
    password: string | null,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'renewed' | 'closed' | 'gone' | 'exists'> {
    return await this.#next(async () => {
      const row = await this.#standing(hash, true, at)
      if (row === undefined) return 'closed'
      await this.#thread.call('invitations', 'spendInvitation', { id: row.id, at })
      const shown = passkey === null ? [] : passkeyFields(passkey)
      const args = [row.sub, String(at), password ?? '', ...shown]
      const said = String(await this.#redis.write('renewPerson', ...args))
      if (said === 'renewed') return 'renewed'
      await this.#thread.call('invitations', 'reopenInvitation', row.id)
      return said as 'gone' | 'exists'
    })
  }
}

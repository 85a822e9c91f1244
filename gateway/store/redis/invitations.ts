/** Invitations (identity/store.ts) in Redis: one link is good once, whichever gateways it is opened at; inviting.ts has the transactions. */
import type {
  AccountRow,
  InvitationPlace,
  InvitationRow,
  InvitationStore,
  PasskeyRow,
} from '../../identity/store.ts'
import type { RedisConnection } from './connection.ts'
import { passkeyFields } from './factors.ts'
import { accountFields } from './people.ts'
import { fieldsOf, lists, numberOrNull, text } from './row.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

/** Those that were used, withdrawn or ran out, and are kept for the list. */
const KEPT = 1_000

function optional(value: unknown): InvitationRow | undefined {
  const fields = fieldsOf(value)
  if (fields.size === 0) return undefined
  const at = numberOrNull(fields, 'closedAt')
  const how = fields.get('closedHow') === 'used' ? 'used' : 'revoked'
  const row = JSON.parse(text(fields, 'row')) as InvitationRow
  return { ...row, closed: at === null ? null : { at, how } }
}

const argsOf = (row: InvitationRow): string[] => [
  JSON.stringify(row),
  String(row.createdAt),
  String(row.expiresAt),
]

/** Rejects with StoreError. */
export class RedisInvitationStore implements InvitationStore {
  readonly #redis: Commands
  readonly #kept: number
  constructor(redis: Commands, kept = KEPT) {
    this.#redis = redis
    this.#kept = kept
  }
  async isTaken(email: string, now: number): Promise<boolean> {
    return (await this.#redis.read('isTaken', email, String(now))) === 1
  }
  async standingInvitations(now: number): Promise<number> {
    return Number(await this.#redis.read('standingInvitations', String(now)))
  }
  async addInvitation(row: InvitationRow, most: number): Promise<'added' | 'exists' | 'full'> {
    const args = [...argsOf(row), String(most), String(this.#kept)]
    return (await this.#redis.write('addInvitation', ...args)) as 'added' | 'exists' | 'full'
  }
  async findInvitation(
    key: { readonly id: string } | { readonly hash: string },
  ): Promise<InvitationRow | undefined> {
    const args = 'id' in key ? [key.id, ''] : ['', key.hash]
    return optional(await this.#redis.read('findInvitation', ...args))
  }
  async listInvitations(limit: number, after?: InvitationPlace): Promise<readonly InvitationRow[]> {
    const from = after === undefined ? ['', ''] : [String(after.createdAt), after.id]
    const rows = lists(await this.#redis.read('listInvitations', ...from, String(limit)))
    return rows.flatMap((row) => optional(row) ?? [])
  }
  async closeInvitation(id: string, at: number): Promise<InvitationRow | undefined> {
    return optional(await this.#redis.write('closeInvitation', id, String(at)))
  }
  async redeemInvitation(
    hash: string,
    account: AccountRow,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'redeemed' | 'closed' | 'taken' | 'exists'> {
    const made = accountFields(account)
    const shown = passkey === null ? [] : passkeyFields(passkey)
    const args = [hash, String(at), String(made.length), ...made, ...shown]
    const said = await this.#redis.write('redeemInvitation', ...args)
    return said as 'redeemed' | 'closed' | 'taken' | 'exists'
  }
  async renewAccount(
    hash: string,
    password: string | null,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'renewed' | 'closed' | 'gone' | 'exists'> {
    const shown = passkey === null ? [] : passkeyFields(passkey)
    const args = [hash, String(at), password ?? '', ...shown]
    const said = await this.#redis.write('renewAccount', ...args)
    return said as 'renewed' | 'closed' | 'gone' | 'exists'
  }

  /** Takes over what stands in the file of `directory`, the first time that it is asked for it; gives how many that were. */
  async take(directory: string, standing: readonly InvitationRow[]): Promise<number> {
    const rows = standing.flatMap(argsOf)
    return Number(await this.#redis.write('takeInvitations', directory, ...rows))
  }
}

/** Grants (grants/store.ts) in Redis, for several gateways with one set of them; granting.ts has the transactions. */
import { canonical, type Statement } from '#approval'
import {
  supersededBy,
  unsealedBy,
  type Approval,
  type Extension,
  type Grant,
  type GrantEvent,
  type GrantState,
} from '../../grants/grant.ts'
import type { GrantFilter, GrantStore } from '../../grants/store.ts'
import type { RedisConnection } from './connection.ts'
import {
  fieldsOf,
  flatten,
  lists,
  number,
  numberOrNull,
  strings,
  text,
  type Fields,
} from './row.ts'

/** So many grants of one person for one device are enough to decide on. */
const APPLICABLE = 32

/** A grant as the scripts take it. What they write themselves (uses, octets, the end) is left to them. */
function rowOf({ statement, hash, state, ...rest }: Grant): Record<string, string | number | null> {
  return {
    id: statement.id,
    statement: canonical(statement),
    hash,
    state,
    requester: statement.requester,
    email: rest.requester_email,
    asked: rest.approvals_asked,
    needed: rest.approvals_needed,
    ticketValid: rest.ticket_valid === undefined ? null : Number(rest.ticket_valid),
    createdAt: statement.created_at,
    devices: JSON.stringify(statement.devices),
    processes: JSON.stringify(statement.processes),
    level: statement.ot_level,
    notBefore: statement.not_before,
    notAfter: statement.not_after,
    maxDuration: statement.max_duration_s,
    maxUses: statement.max_uses ?? null,
    maxBytes: statement.max_bytes ?? null,
    sealed: statement.sealed === undefined ? null : 1,
    ...othersOf(statement),
  }
}

/** The other grants that it is about. */
function othersOf({ extends: extended, unseals, supersedes }: Statement) {
  return {
    extends: extended?.grant ?? null,
    extendsHash: extended?.sha256 ?? null,
    unseals: unseals?.grant ?? null,
    unsealsHash: unseals?.sha256 ?? null,
    supersedes: supersedes?.grant ?? null,
  }
}

function approvalsOf(value: unknown): Approval[] {
  const all = strings(value).map((one) => JSON.parse(one) as Approval)
  return all.toSorted((a, b) => a.at - b.at || (a.by < b.by ? -1 : 1))
}

function extensionOf(row: unknown, approvals: unknown): Extension {
  const { statement, hash, approvals: given, ...rest } = grantOf(fieldsOf(row), approvals, null)
  const valid = rest.ticket_valid === undefined ? {} : { ticket_valid: rest.ticket_valid }
  return { statement, hash, approvals: given, ...valid }
}

function grantOf(fields: Fields, approvals: unknown, extension: Extension | null): Grant {
  const valid = fields.get('ticketValid')
  return {
    statement: JSON.parse(text(fields, 'statement')) as Statement,
    hash: text(fields, 'hash'),
    // Only the scripts write it, from the table that has no other.
    state: text(fields, 'state') as GrantState,
    requester_email: fields.get('email') ?? null,
    approvals: approvalsOf(approvals),
    approvals_asked: number(fields, 'asked'),
    approvals_needed: number(fields, 'needed'),
    first_used_at: numberOrNull(fields, 'firstUsedAt'),
    uses: number(fields, 'uses'),
    bytes: number(fields, 'bytes'),
    extension,
    ...(valid === undefined ? {} : { ticket_valid: valid === '1' }),
    ended: fields.has('endedAt')
      ? {
          at: number(fields, 'endedAt'),
          by: text(fields, 'endedBy'),
          reason: text(fields, 'endedReason'),
        }
      : null,
  }
}

/** What `whole` gives: the row, its approvals, and the same of its extension where it has one. */
function optional(value: unknown): Grant | undefined {
  // A script's `false`.
  if (value === null) return undefined
  const [row, approvals, extension, agreed] = lists(value)
  const fields = fieldsOf(row)
  if (fields.size === 0) return undefined
  return grantOf(fields, approvals, extension === undefined ? null : extensionOf(extension, agreed))
}

function rowsOf(value: unknown): Grant[] {
  return lists(value).flatMap((row) => optional(row) ?? [])
}

/** Rejects with StoreError; expected refusals are outcomes. */
export class RedisGrantStore implements GrantStore {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>) {
    this.#redis = redis
  }

  async add(grant: Grant): Promise<boolean> {
    const { id } = grant.statement
    const words = [supersededBy(id), unsealedBy(id)]
    return (await this.#redis.write('addGrant', ...words, ...flatten(rowOf(grant)))) === 1
  }
  async find(id: string): Promise<Grant | undefined> {
    return optional(await this.#redis.read('findGrant', id))
  }
  async list({ requester = '', after, limit }: GrantFilter): Promise<readonly Grant[]> {
    const from = after === undefined ? ['', ''] : [String(after.created_at), after.id]
    return rowsOf(await this.#redis.read('listGrants', requester, ...from, String(limit)))
  }
  async applicable(requester: string, device: string, now: number): Promise<readonly Grant[]> {
    const args = [requester, device, String(now), String(APPLICABLE)]
    return rowsOf(await this.#redis.read('applicableGrants', ...args))
  }
  async writes(of: Parameters<GrantStore['writes']>[0]): Promise<readonly Grant[]> {
    const args = [of.requester, of.device, of.process, String(of.now)]
    return rowsOf(await this.#redis.read('writingGrants', ...args))
  }
  async running(limit: number): Promise<readonly Grant[]> {
    return rowsOf(await this.#redis.read('runningGrants', String(limit)))
  }
  async approve(id: string, approval: Approval, needed: number): Promise<Grant | undefined> {
    const { by, at, hash } = approval
    const args = [id, by, String(at), hash, JSON.stringify(approval), String(needed)]
    return optional(
      await this.#redis.write('approveGrant', ...args, supersededBy(id), unsealedBy(id)),
    )
  }
  async apply(
    id: string,
    event: Exclude<GrantEvent, 'approve'>,
    at: number,
    by: string,
    reason: string,
  ): Promise<Grant | undefined> {
    if (event === 'use') return optional(await this.#redis.write('useGrant', id, String(at)))
    return optional(await this.#redis.write('endGrant', id, event, String(at), by, reason))
  }
  /** Epoch seconds, by the server's clock. */
  async time(): Promise<number> {
    return Number(await this.#redis.read('clock'))
  }
  async takeBytes(id: string, wanted: number): Promise<number> {
    return Number(await this.#redis.write('takeBytes', id, String(wanted)))
  }
  async returnBytes(id: string, unused: number): Promise<void> {
    await this.#redis.write('returnBytes', id, String(unused))
  }
}

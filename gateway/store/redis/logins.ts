/**
 * Logins and the provider's rows (identity/store.ts) in Redis; logining.ts has the transactions. Whoever reads that Redis, or
 * a copy of its disk, finds no code, token or cookie there: rows are sealed under the keys that the gateways share.
 */
import { createHash } from 'node:crypto'
import { openSecret, sealSecret } from '../../identity/sealing.ts'
import type { LoginRow, OidcRow, OidcStore, StandingLogin } from '../../identity/store.ts'
import type { Authentication } from '../../identity/subject.ts'
import { recordOf } from '../sqlite/identity.ts'
import { StoreError } from '../sqlite/thread.ts'
import type { RedisConnection } from './connection.ts'
import { SKEW_MS } from './gateways.ts'
import { fieldsOf, number, strings, text } from './row.ts'

type Payload = OidcRow['payload']

/** Rows that a sweep removes: so many in one script, for nobody else is served meanwhile; and so many in all. */
const SWEPT = 500
const MOST_SWEPT = 10_000

const SIGNED_IN = ['Session', 'Grant', 'Interaction', 'IdpReturn'] as const

/** A token is its own id: what names its row must not be the token. */
const digestOf = (model: string, id: string): string =>
  createHash('sha256').update(`${model}\0${id}`).digest('base64url')

/** Rejects with StoreError; `store.sealed` where a row is under none of the keys. */
export class RedisOidcStore implements OidcStore {
  readonly skewMs = SKEW_MS
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  readonly #keys: readonly [string, ...string[]]
  /** `keys` are the secrets that seal, the newest first. */
  constructor(
    redis: Pick<RedisConnection, 'read' | 'write'>,
    keys: readonly [string, ...string[]],
  ) {
    this.#redis = redis
    this.#keys = keys
  }
  async upsert(row: OidcRow): Promise<void> {
    await this.#put(row, false)
  }
  async insert(row: OidcRow): Promise<boolean> {
    return await this.#put(row, true)
  }
  async #put(row: OidcRow, isNew: boolean): Promise<boolean> {
    const { model, id, payload, grant, uid, userCode, sub, expiresAt } = recordOf(row)
    const digest = digestOf(model, id)
    const by = (value: string | null) => (value === null ? '' : digestOf(model, `by ${value}`))
    const used = row.payload['consumed']
    const args = [
      isNew ? '1' : '',
      digest,
      model,
      sealSecret(payload, digest, this.#keys[0], 'oidc'),
      grant ?? '',
      sub ?? '',
      by(uid),
      by(userCode),
      expiresAt === null ? '' : String(expiresAt),
      typeof used === 'number' ? String(used) : '',
    ]
    return (await this.#redis.write('putRow', ...args)) === 1
  }
  async find(model: string, id: string): Promise<Payload | undefined> {
    return this.#opened(await this.#redis.read('findRow', digestOf(model, id), ''))
  }
  async findByUid(model: string, uid: string): Promise<Payload | undefined> {
    return this.#opened(await this.#redis.read('findRow', digestOf(model, `by ${uid}`), '1'))
  }
  async findByUserCode(model: string, code: string): Promise<Payload | undefined> {
    return await this.findByUid(model, code)
  }
  #opened(value: unknown): Payload | undefined {
    const [digest, sealed, consumed] = strings(value)
    if (digest === undefined || sealed === undefined) return undefined
    const json = openSecret(sealed, digest, this.#keys, 'oidc')
    if (json === undefined)
      throw new StoreError('store.sealed', 'a row of Redis is under none of identity/keys.json')
    const payload = JSON.parse(json) as Payload
    return consumed === '' ? payload : { ...payload, consumed: Number(consumed) }
  }
  async consume(model: string, id: string, at: number): Promise<boolean> {
    return (await this.#redis.write('consumeRow', digestOf(model, id), String(at))) === 1
  }
  async destroy(model: string, id: string): Promise<void> {
    await this.#redis.write('destroyRow', digestOf(model, id))
  }
  async revokeByGrant(model: string, grant: string): Promise<void> {
    await this.#redis.write('revokeRows', model, grant)
  }
  async extendLogin({ login, sub, client, startedAt, tokenUntil }: LoginRow): Promise<void> {
    const args = [login, digestOf('Grant', login), sub, client, String(startedAt)]
    await this.#redis.write('extendLogin', ...args, String(tokenUntil))
  }
  async findLogin(login: string, now: number): Promise<StandingLogin | undefined> {
    const fields = fieldsOf(await this.#redis.read('findLogin', login, String(now)))
    if (fields.size === 0) return undefined
    const stepped = fields.get('stepped')
    return {
      stepped: stepped === undefined ? null : (JSON.parse(stepped) as Authentication),
      login,
      sub: text(fields, 'sub'),
      client: text(fields, 'client'),
      startedAt: number(fields, 'started'),
      tokenUntil: number(fields, 'until'),
    }
  }
  async stepUp(login: string, authn: Authentication): Promise<boolean> {
    return (await this.#redis.write('stepUp', login, JSON.stringify(authn))) === 1
  }
  async endLogin(login: string): Promise<boolean> {
    return (await this.#redis.write('endLogin', login, digestOf('Grant', login))) === 1
  }
  async hasLogins(sub: string): Promise<boolean> {
    return (await this.#redis.read('hasLogins', sub, ...SIGNED_IN)) === 1
  }
  async endLoginsOf(sub: string): Promise<readonly string[]> {
    return strings(await this.#redis.write('endLoginsOf', sub))
  }
  async sweep(before: number): Promise<number> {
    const until = [String(before), String(SWEPT)]
    let swept = 0
    for (let some = SWEPT; some === SWEPT && swept < MOST_SWEPT; swept += some)
      some = Number(await this.#redis.write('sweepRows', ...until))
    for (let some = SWEPT, seen = 0; some === SWEPT && seen < MOST_SWEPT; seen += some)
      some = Number(await this.#redis.write('sweepLogins', ...until))
    return swept
  }
}

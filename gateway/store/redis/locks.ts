/** Locks (locks/lock.ts) in Redis: one that is put on at one gateway shuts out at all of them; locking.ts has the transactions. */
import type { Lock, LockPlace, LockStore } from '../../locks/lock.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, text } from './row.ts'

function optional(value: unknown): Lock | undefined {
  const fields = fieldsOf(value)
  if (fields.size === 0) return undefined
  const lifted = fields.get('lifted')
  const lock = JSON.parse(text(fields, 'row')) as Lock
  return lifted === undefined ? lock : { ...lock, lifted: JSON.parse(lifted) as Lock['lifted'] }
}

function rowsOf(value: unknown): Lock[] {
  return lists(value).flatMap((row) => optional(row) ?? [])
}

/** Rejects with StoreError. */
export class RedisLockStore implements LockStore {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>) {
    this.#redis = redis
  }
  async addLock(lock: Lock, most: number): Promise<boolean> {
    const args = [lock.id, String(lock.at), JSON.stringify(lock), String(most)]
    return (await this.#redis.write('addLock', ...args)) === 1
  }
  async findLock(id: string): Promise<Lock | undefined> {
    return optional(await this.#redis.read('findLock', id))
  }
  async standingLocks(): Promise<readonly Lock[]> {
    return rowsOf(await this.#redis.read('standingLocks'))
  }
  async listLocks(limit: number, after?: LockPlace): Promise<readonly Lock[]> {
    const from =
      after === undefined
        ? ['', '', '']
        : [after.lifted ? 'lifted' : 'standing', String(after.at), after.id]
    return rowsOf(await this.#redis.read('listLocks', ...from, String(limit)))
  }
  async liftLock(id: string, lifted: NonNullable<Lock['lifted']>): Promise<Lock | undefined> {
    return optional(await this.#redis.write('liftLock', id, JSON.stringify(lifted)))
  }
}

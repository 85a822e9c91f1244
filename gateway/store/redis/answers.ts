/** Answers of writes with a key (answers.ts) in Redis: what one gateway has done no other does again; answering.ts has the transactions. */
import type { AnswerStore, Claim, Claimed, Kept } from '../../answers.ts'
import type { RedisConnection } from './connection.ts'
import { lists } from './row.ts'

/** Bodies of all answers together: they are in memory there. */
const OCTETS = 64 * 1024 * 1024
/** What another gateway began before that, and has not answered, is taken for one that it never will. */
const RUNS_MS = 120_000

function claimedOf(value: unknown): Claimed {
  const [outcome, first, body] = lists(value)
  switch (outcome) {
    case 'claimed':
    case 'other':
    case 'full':
      return { outcome }
    case 'begun':
      return { outcome, elsewhere: first === '1' }
    case 'done':
      return {
        outcome,
        kept: { status: Number(first), body: typeof body === 'string' ? body : null },
      }
    default:
      throw new TypeError('Redis: a claim has no such outcome')
  }
}

/** Rejects with StoreError. `gateway` is who claims; `octets` bounds the bodies of all. */
export class RedisAnswerStore implements AnswerStore {
  readonly #redis: Pick<RedisConnection, 'write'>
  readonly #gateway: string
  readonly #octets: number
  constructor(redis: Pick<RedisConnection, 'write'>, gateway: string, octets = OCTETS) {
    this.#redis = redis
    this.#gateway = gateway
    this.#octets = octets
  }

  async claim({ name, print, owner, at, until, most }: Claim): Promise<Claimed> {
    const numbers = [at, until, most.own, most.all, RUNS_MS].map(String)
    const args = [name, print, owner, this.#gateway, ...numbers]
    return claimedOf(await this.#redis.write('claimAnswer', ...args))
  }
  async finish(name: string, { status, body }: Kept): Promise<void> {
    const args = [name, String(status), String(this.#octets), ...(body === null ? [] : [body])]
    await this.#redis.write('finishAnswer', ...args)
  }
  async release(name: string): Promise<void> {
    await this.#redis.write('releaseAnswer', name)
  }
}

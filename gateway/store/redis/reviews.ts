/** Reviews of broken seals (grants/review.ts) in Redis, beside the grants that broke them. */
import type { Review, ReviewPlace, ReviewStore } from '../../grants/review.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, text, type Fields } from './row.ts'

function reviewOf(fields: Fields): Review {
  return {
    grant: text(fields, 'grant'),
    opened_at: number(fields, 'openedAt'),
    due_at: number(fields, 'dueAt'),
    reminded: fields.has('reminded'),
    closed: fields.has('closedAt')
      ? {
          at: number(fields, 'closedAt'),
          by: text(fields, 'closedBy'),
          note: text(fields, 'note'),
        }
      : null,
  }
}

function optional(value: unknown): Review | undefined {
  const fields = fieldsOf(value)
  return fields.size === 0 ? undefined : reviewOf(fields)
}

/** Before all others. */
const FIRST: ReviewPlace = [0, Number.MIN_SAFE_INTEGER, '']

/** Rejects with StoreError. */
export class RedisReviewStore implements ReviewStore {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>) {
    this.#redis = redis
  }
  async findReview(grant: string): Promise<Review | undefined> {
    return optional(await this.#redis.read('findReview', grant))
  }
  async listReviews(limit: number, after = FIRST): Promise<readonly Review[]> {
    const [closed, order, grant] = after
    const place = [String(closed), String(order), grant] as const
    const rows = lists(await this.#redis.read('listReviews', String(limit), ...place))
    return rows.map((row) => reviewOf(fieldsOf(row)))
  }
  async closeReview(
    grant: string,
    { at, by, note }: NonNullable<Review['closed']>,
  ): Promise<Review | undefined> {
    return optional(await this.#redis.write('closeReview', grant, String(at), by, note))
  }
  async markReminded(grant: string): Promise<void> {
    await this.#redis.write('remindReview', grant)
  }
}

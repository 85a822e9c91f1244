/** Proofs that one of the gateways has taken (identity/replay.ts) are taken by no other; sharing.ts has the scripts. */
import { createHash } from 'node:crypto'
import type { SharedProofs } from '../../identity/replay.ts'
import { ReplicasMissing, WriteRefused, type RedisConnection } from './connection.ts'
import { SKEW_MS } from './gateways.ts'

/**
 * Proofs that any of the gateways has seen. Whoever ends something must be heard: where Redis answers
 * that it takes no writes, a proof is good where it shows none, so once at each gateway; where too few replicas have the
 * proof, the one server that has it has answered. Of a write that nobody answered nobody knows. Rejects with StoreError.
 */
export class RedisProofs implements SharedProofs {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>) {
    this.#redis = redis
  }
  async first(thumbprint: string, jti: string, until: number, now: number): Promise<boolean> {
    const digest = createHash('sha256').update(`${thumbprint}\0${jti}`).digest('base64url')
    // A little longer than by this clock: another gateway's may be behind it.
    const left = Math.max(1, Math.ceil(until - now)) + SKEW_MS
    try {
      return (await this.#redis.write('rememberProof', digest, String(left))) === 1
    } catch (error) {
      // It was this very write that left the key there: to read it back would say of every proof that it came before.
      if (error instanceof ReplicasMissing) return error.value === 1
      if (!(error instanceof WriteRefused)) throw error
      return (await this.#redis.read('seenProof', digest)) === 0
    }
  }
}

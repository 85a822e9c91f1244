/**
 * Proofs seen within the last minutes (RFC 9449 11.1): bounded in all and per key, so that one caller can
 * neither fill the memory nor push another's proofs out. Full means no, never "forget the oldest".
 */

export interface ReplayLimits {
  readonly all: number
  readonly perKey: number
}

export type ReplayAnswer = 'fresh' | 'replayed' | 'busy'

export interface ReplayMemory {
  /** Remembers `jti` under the key's thumbprint until `until`; instants are epoch milliseconds. */
  remember(thumbprint: string, jti: string, until: number, now: number): ReplayAnswer
}

/** What the gateways that share people have seen, all of them: a proof is good at one of them, once. */
export interface SharedProofs {
  /** False where it was seen before; `until` is when it can be used no more. Rejects where nobody knows. */
  first(thumbprint: string, jti: string, until: number, now: number): Promise<boolean>
}

export function createReplayMemory(
  limits: ReplayLimits = { all: 100_000, perKey: 6_000 },
): ReplayMemory {
  // Per key, in order of arrival; all entries live equally long but for the clients' skew.
  const keys = new Map<string, Map<string, number>>()
  let size = 0
  let sweptAt = 0

  const drop = (thumbprint: string, seen: Map<string, number>, now: number): void => {
    for (const [jti, until] of seen) {
      if (until > now) continue
      seen.delete(jti)
      size--
    }
    if (seen.size === 0) keys.delete(thumbprint)
  }
  const sweep = (now: number): void => {
    if (now - sweptAt < 1_000) return
    sweptAt = now
    for (const [thumbprint, seen] of keys) drop(thumbprint, seen, now)
  }

  return {
    remember(thumbprint, jti, until, now) {
      const known = keys.get(thumbprint)
      if (known !== undefined && (known.get(jti) ?? 0) > now) return 'replayed'
      if (size >= limits.all || (known?.size ?? 0) >= limits.perKey) sweep(now)
      const seen = keys.get(thumbprint) ?? new Map<string, number>()
      if (size >= limits.all || seen.size >= limits.perKey) return 'busy'
      if (!seen.has(jti)) size++
      seen.set(jti, until)
      keys.set(thumbprint, seen)
      return 'fresh'
    },
  }
}

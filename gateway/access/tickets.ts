/** Secrets that a browser is handed for one session: each is good once, for a minute. */
import { hash, randomBytes } from 'node:crypto'

/** How long one is good for. */
export const TICKET_MS = 60_000
/** Oldest first out: a bound on what tickets that nobody redeemed can hold. */
const LIMIT = 10_000

/** Secrets are kept as hashes, so that looking one up compares no secret byte by byte. */
export function keyOf(secret: string): string {
  return hash('sha256', secret)
}

export class Tickets {
  readonly #open = new Map<string, { readonly session: string; readonly until: number }>()

  /** One for `session`: 256 bits, base64url. `now` is epoch milliseconds. */
  issue(session: string, now: number): string {
    const text = randomBytes(32).toString('base64url')
    for (const [key, { until }] of this.#open) {
      if (until > now && this.#open.size < LIMIT) break
      this.#open.delete(key)
    }
    this.#open.set(keyOf(text), { session, until: now + TICKET_MS })
    return text
  }

  /** The session it is for; undefined where it was used, is too old, or never was. Whatever it says, it is used now. */
  redeem(ticket: string, now: number): string | undefined {
    const key = keyOf(ticket)
    const found = this.#open.get(key)
    this.#open.delete(key)
    return found === undefined || found.until <= now ? undefined : found.session
  }

  /** Nothing of an ended session stays. */
  forget(session: string): void {
    for (const [key, of] of this.#open) if (of.session === session) this.#open.delete(key)
  }
}

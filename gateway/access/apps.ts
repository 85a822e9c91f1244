/**
 * Who a browser is, per web app: a link that works once becomes a host-only cookie that names one
 * session. Each app has a host name of its own, so no cookie and no script of one reaches another.
 */
import { randomBytes } from 'node:crypto'
import { keyOf, Tickets } from './tickets.ts'

/** Oldest first out: a bound on what cookies of sessions that go on for ever can hold. */
const LIMIT = 10_000

export const APP_COOKIE = '__Host-sallyport-app'
export const ENTER_PATH = '/.sallyport/enter'

export interface AppName {
  readonly process: string
  readonly device: string
}

/** `<process>--<device>`, the label in front of the apps domain; ids hold no double hyphen. */
export function parseAppLabel(label: string): AppName | undefined {
  const parts = label.split('--')
  const [process, device] = parts
  if (parts.length !== 2 || process === undefined || device === undefined) return undefined
  const name = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/
  return name.test(process) && name.test(device) ? { process, device } : undefined
}

export class AppSignIns {
  readonly #tickets = new Tickets()
  readonly #cookies = new Map<string, string>()

  /** A link's secret for one session. `now` is epoch milliseconds. */
  ticket(session: string, now: number): string {
    return this.#tickets.issue(session, now)
  }

  /** Redeems a ticket for a cookie value; undefined where it was used, is too old, or never was. */
  enter(
    ticket: string,
    now: number,
  ): { readonly session: string; readonly cookie: string } | undefined {
    const session = this.#tickets.redeem(ticket, now)
    if (session === undefined) return undefined
    const cookie = randomBytes(32).toString('base64url')
    const oldest = this.#cookies.keys().next().value
    if (this.#cookies.size >= LIMIT && oldest !== undefined) this.#cookies.delete(oldest)
    this.#cookies.set(keyOf(cookie), session)
    return { session, cookie }
  }

  /** The session that a browser's cookie names. */
  find(cookie: string): string | undefined {
    return this.#cookies.get(keyOf(cookie))
  }

  /** Nothing of an ended session stays. */
  forget(session: string): void {
    for (const [key, of] of this.#cookies) if (of === session) this.#cookies.delete(key)
    this.#tickets.forget(session)
  }
}

/** The value of one cookie in a Cookie header, and the header without it. */
export function takeCookie(
  header: string | undefined,
  name: string,
): { readonly value: string | undefined; readonly rest: string } {
  let value: string | undefined
  const rest: string[] = []
  for (const part of (header ?? '').split(';')) {
    const at = part.indexOf('=')
    if (at !== -1 && part.slice(0, at).trim() === name) value ??= part.slice(at + 1).trim()
    else if (part.trim() !== '') rest.push(part.trim())
  }
  return { value, rest: rest.join('; ') }
}

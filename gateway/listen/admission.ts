/**
 * Who may begin a TLS handshake: a handshake costs the node a thousand times what it costs to ask for
 * one. Each source has its own allowance, and those who have not lately proven who they are share
 * another one, so that neither one address nor many keep out the devices and people who belong here.
 */

export interface AdmissionLimits {
  /** Handshakes a second that one source may begin; four seconds' worth at once. 0: no limit. */
  readonly perSource: number
  /** Connections that one source may have open. 0: no limit. */
  readonly open: number
  /** Handshakes a second of all sources together that have not proven themselves. 0: no limit. */
  readonly strangers: number
  /** Connections that those sources may have open together: the other places are for who belongs here. 0: no limit. */
  readonly strangersOpen: number
}

/** Connections that the port has at once, whoever they are of. */
export const MAX_CONNECTIONS = 20_000

export const DEFAULT_ADMISSION: AdmissionLimits = {
  perSource: 50,
  open: 4096,
  strangers: 200,
  strangersOpen: (MAX_CONNECTIONS / 4) * 3,
}

/** Why a connection is closed before anything is read of it. */
export type AdmissionCode =
  | 'source.rate'
  | 'source.connections'
  | 'strangers.rate'
  | 'strangers.connections'

const BURST_SECONDS = 4
/** Sources told apart; those beyond share one account. */
const MAX_SOURCES = 50_000
/** So long a source is known after it has proven itself. */
const KNOWN_MS = 86_400_000

/** Tokens that fill up with time. */
class Bucket {
  readonly #perSecond: number
  #tokens: number
  #at: number
  constructor(perSecond: number, now: number) {
    this.#perSecond = perSecond
    this.#tokens = perSecond * BURST_SECONDS
    this.#at = now
  }
  fill(now: number): number {
    const earned = ((now - this.#at) * this.#perSecond) / 1000
    this.#tokens = Math.min(this.#perSecond * BURST_SECONDS, this.#tokens + earned)
    this.#at = now
    return this.#tokens
  }
  take(now: number): boolean {
    if (this.#perSecond === 0) return true
    if (this.fill(now) < 1) return false
    this.#tokens--
    return true
  }
  full(now: number): boolean {
    return this.fill(now) >= this.#perSecond * BURST_SECONDS
  }
}

/** What a source has used; given back by `leave`. */
export interface Account {
  readonly source: string
  readonly bucket: Bucket
  open: number
  /** How many of the open ones take a stranger's place. */
  asStranger: number
}

/** The network of an address that one owner has: IPv4 whole, the first four groups of IPv6. */
export function ownerOf(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : 8 - groups.length - rest.length
  return [...groups, ...Array<string>(Math.max(0, zeros)).fill('0'), ...rest].slice(0, 4).join(':')
}

/** Times are monotonic milliseconds; addresses as a socket says them, IPv4 without `::ffff:`. */
export class Admission {
  readonly #limits: AdmissionLimits
  readonly #accounts = new Map<string, Account>()
  readonly #known = new Map<string, number>()
  readonly #strangers: Bucket
  #strangersOpen = 0
  #forgottenAt = Number.NEGATIVE_INFINITY

  constructor(limits: AdmissionLimits, now: number) {
    this.#limits = limits
    this.#strangers = new Bucket(limits.strangers, now)
  }

  /** One more connection: the account it is on, to be given to `leave`, or the code that keeps it out. */
  enter(address: string, now: number): Account | AdmissionCode {
    const account = this.#account(ownerOf(address), now)
    const { open, strangersOpen } = this.#limits
    const stranger = !this.#isKnown(account.source, now)
    if (open > 0 && account.open >= open) return 'source.connections'
    if (stranger && strangersOpen > 0 && this.#strangersOpen >= strangersOpen)
      return 'strangers.connections'
    if (!account.bucket.take(now)) return 'source.rate'
    if (stranger && !this.#strangers.take(now)) return 'strangers.rate'
    account.open++
    if (stranger) this.#place(account, 1)
    return account
  }

  leave(account: Account, now: number): void {
    account.open--
    if (account.asStranger > 0) this.#place(account, -1)
    if (account.open <= 0 && account.bucket.full(now)) this.#accounts.delete(account.source)
  }

  /** Somebody at this address has proven to be a device or a person of this gateway. */
  proven(address: string, now: number): void {
    const source = ownerOf(address)
    this.remember(source, now)
    const account = this.#accounts.get(source)
    if (account !== undefined) this.#place(account, -account.asStranger)
  }

  /** Those who have proven themselves within a day, as the sources that `remember` takes, and when. */
  known(now: number): (readonly [source: string, at: number])[] {
    return [...this.#known].filter(([, at]) => now - at < KNOWN_MS)
  }

  /** `source` had proven itself at `at`. */
  remember(source: string, at: number): void {
    this.#known.delete(source)
    this.#known.set(source, at)
    if (this.#known.size <= MAX_SOURCES) return
    const [oldest] = this.#known.keys()
    if (oldest !== undefined) this.#known.delete(oldest)
  }

  #place(account: Account, places: number): void {
    account.asStranger += places
    this.#strangersOpen += places
  }

  #isKnown(source: string, now: number): boolean {
    const at = this.#known.get(source)
    return at !== undefined && now - at < KNOWN_MS
  }

  #account(owner: string, now: number): Account {
    if (this.#accounts.size >= MAX_SOURCES && !this.#accounts.has(owner)) this.#forget(now)
    const source = this.#accounts.has(owner) || this.#accounts.size < MAX_SOURCES ? owner : ''
    const before = this.#accounts.get(source)
    if (before !== undefined) return before
    const account = {
      source,
      bucket: new Bucket(this.#limits.perSource, now),
      open: 0,
      asStranger: 0,
    }
    this.#accounts.set(source, account)
    return account
  }

  /** Those that have nothing open and their whole allowance; looked for once a second at most. */
  #forget(now: number): void {
    if (now < this.#forgottenAt + 1000) return
    this.#forgottenAt = now
    for (const [source, { bucket, open }] of this.#accounts)
      if (open <= 0 && bucket.full(now)) this.#accounts.delete(source)
  }
}

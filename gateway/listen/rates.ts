/**
 * How many calls of the API one person, and one address, may make. Whatever takes access away is never refused for
 * having been asked too often to whom may do it: who floods the API must not keep an operator from cutting.
 */
import { createHash } from 'node:crypto'
import type { FastifyReply } from 'fastify'
import { Refusal } from '../problem.ts'
import { ownerOf } from './admission.ts'
import { Allowance } from './allowance.ts'

/** Calls a second; ten seconds' worth at once. 0: no limit. */
export interface ApiRates {
  /** Of one identity: calls that change nothing. */
  readonly reads: number
  /** Of one identity: calls that do. */
  readonly writes: number
  /** Of one identity: calls that cost the node much (a password's hash, a policy tried on all that was decided). */
  readonly costly: number
  /** Of one address (IPv6: /64): calls in nobody's name, and those whose sign-in was not accepted. */
  readonly strangers: number
}

/** What a call is counted on. */
export type CallClass = 'cut' | 'reads' | 'writes' | 'costly'

/** Calls that only take access away, of others or of oneself. */
export const CUTTING: ReadonlySet<string> = new Set([
  'POST /api/v1/sessions/:id/cut',
  'POST /api/v1/sessions/:id/end',
  'POST /api/v1/sessions/:id/pause',
  'POST /api/v1/locks',
  'POST /api/v1/grants/:id/revoke',
  'POST /api/v1/grants/:id/reject',
  'POST /api/v1/grants/:id/done',
  'POST /api/v1/accounts/:id/disable',
  'POST /api/v1/accounts/:id/passkeys/remove',
  'POST /api/v1/accounts/:id/totp/remove',
  'POST /api/v1/idps/:id/disable',
  'POST /api/v1/idps/:id/remove',
  'POST /api/v1/invitations/:id/revoke',
  'POST /api/v1/services/:id/revoke',
  'POST /api/v1/devices/:id/quarantine',
  'POST /api/v1/devices/:id/revoke',
  'POST /api/v1/devices/:id/decommission',
  'POST /api/v1/devices/:id/tokens/:token/revoke',
  'POST /api/v1/rollouts/:id/pause',
  'POST /api/v1/rollouts/:id/abort',
  'POST /api/v1/certificates/:serial/revoke',
  'POST /api/v1/ca/issuers/:id/revoke',
])

export const COSTLY: ReadonlySet<string> = new Set([
  'POST /api/v1/accounts',
  'POST /api/v1/policy/impact',
  'POST /api/v1/policy/candidate',
  'POST /api/v1/policy/source/look',
  'POST /api/v1/policy/trial',
  'GET /api/v1/policy/rollback',
  'GET /api/v1/policy/who-can',
])

/** What a witness's token opens, by a rule of its own: who holds one is no stranger. */
export const WITNESSED: ReadonlySet<string> = new Set([
  'GET /api/v1/audit/log/checkpoint',
  'GET /api/v1/audit/log/witnessed',
  'GET /api/v1/audit/log/tile/*',
  'POST /api/v1/audit/log/cosignatures',
])

/** `route` is the call's method and its path with the names of its parts. HEAD costs what GET does. */
export function classOf(route: string): CallClass {
  const asked = route.replace(/^HEAD /, 'GET ')
  if (CUTTING.has(asked)) return 'cut'
  if (COSTLY.has(asked)) return 'costly'
  return asked.startsWith('GET ') ? 'reads' : 'writes'
}

/** How long until it may be asked again, beside the problem. */
export class RateRefusal extends Refusal {
  readonly retryAfterS: number
  constructor(code: 'rate.identity' | 'rate.source', detail: string, waitMs: number) {
    const seconds = Math.max(1, Math.ceil(waitMs / 1000))
    const nextStep = `ask again in ${seconds} s; whoever may cut (sessions, grants, locks) is never refused that for this`
    super(code, detail, { nextStep })
    this.retryAfterS = seconds
  }
}

/** Names told apart in each class, and keys that are remembered: about 10 MB in all, whoever asks. */
const NAMES = 20_000
const BURST_S = 10
/** Of calls that cut: those that are refused, and those that are allowed and change nothing. Each of them is recorded. */
const REFUSALS = { perSecond: 0.5, atOnce: 30 } as const

function allowance(perSecond: number): Allowance | undefined {
  if (perSecond === 0) return undefined
  return new Allowance(perSecond, Math.max(1, perSecond * BURST_S), NAMES)
}

/** One call, from when it is heard until it is answered. Times are monotonic milliseconds. */
export interface Counted {
  readonly source: string
  readonly kind: CallClass
  readonly route: string
  /** The key that its proof names, which is not proven yet; null: it names none. */
  readonly key: string | null
  /** It came with some sign-in, of whatever kind. */
  readonly signed: boolean
  /** One of the strangers' was taken for it. */
  taken: boolean
}

export interface Call {
  readonly route: string
  readonly address: string
  readonly authorization: string | undefined
  /** The `DPoP` header. */
  readonly proof: string | undefined
}

/** Failures in a row after which a key is nobody's again: its token may have run out meanwhile, and be renewed. */
const FAILURES = 5

/** What is longer is no proof that is accepted. */
const LONGEST_PROOF = 2_048

/** SHA-256 over the public key in a proof's header (RFC 9449, 4.2); null where there is none. Nothing is verified. */
function keyIn(proof = ''): string | null {
  if (proof.length > LONGEST_PROOF) return null
  try {
    const header = JSON.parse(Buffer.from(proof.split('.')[0] ?? '', 'base64url').toString()) as {
      readonly jwk?: Readonly<Record<string, unknown>>
    } | null
    const { crv, x, y = '' } = header?.jwk ?? {}
    if ([crv, x, y].some((part) => typeof part !== 'string')) return null
    return createHash('sha256')
      .update(JSON.stringify([crv, x, y]))
      .digest('base64url')
  } catch {
    return null
  }
}

export class Rates {
  readonly #strangers: Allowance | undefined
  readonly #identities: Readonly<Record<Exclude<CallClass, 'cut'>, Allowance | undefined>>
  /**
   * Keys whose sign-in was accepted lately, and how often it failed since: who holds one is no stranger, whoever else
   * floods from their address, and stays it under the next token.
   */
  readonly #accepted = new Map<string, number>()

  /** Of one identity: refusals of calls that cut, each of which is recorded. */
  readonly #refusals = new Allowance(REFUSALS.perSecond, REFUSALS.atOnce, NAMES)

  /** Of one identity: calls that cut, that it may make, and that find nothing to cut. */
  readonly #idle = new Allowance(REFUSALS.perSecond, REFUSALS.atOnce, NAMES)

  constructor({ reads, writes, costly, strangers }: ApiRates) {
    this.#strangers = allowance(strangers)
    this.#identities = {
      reads: allowance(reads),
      writes: allowance(writes),
      costly: allowance(costly),
    }
  }

  /** Before anything of a call is looked at. Throws RateRefusal `rate.source`. */
  enter({ route, address, authorization, proof }: Call, now: number): Counted {
    const source = ownerOf(address)
    const kind = classOf(route)
    const signed = authorization !== undefined
    const key = signed ? keyIn(proof) : null
    const known = key !== null && this.#accepted.has(key)
    const taken = !known && (this.#strangers?.take(source, now) ?? true)
    if (!known && !taken && kind !== 'cut')
      throw new RateRefusal(
        'rate.source',
        'too many calls that nobody known here has signed came from your address',
        this.#strangers?.wait(source, now) ?? 0,
      )
    return { source, kind, route, key, signed, taken }
  }

  /** Its caller is known. Throws RateRefusal `rate.identity`. */
  admit(call: Counted, identity: string, now: number): void {
    if (call.key !== null) this.#accept(call.key)
    this.#giveBack(call)
    if (call.kind === 'cut') return
    const own = this.#identities[call.kind]
    if (own === undefined || own.take(identity, now)) return
    throw new RateRefusal(
      'rate.identity',
      `you have made as many calls of this kind (${call.kind}) as one person may at a time`,
      own.wait(identity, now),
    )
  }

  /**
   * It is about to be refused, and that is about to be recorded. Who may do what they ask for never comes here.
   * Throws RateRefusal `rate.identity`, for calls that cut alone: all others are counted before they are decided.
   */
  refuse(call: Counted, identity: string, now: number): void {
    if (call.kind !== 'cut' || this.#refusals.take(identity, now)) return
    throw new RateRefusal(
      'rate.identity',
      'you were refused as many calls of this kind (cut) as one person may be at a time',
      this.#refusals.wait(identity, now),
    )
  }

  /**
   * It may be made, changes nothing, and is about to be recorded all the same. What changes something never comes here.
   * Throws RateRefusal `rate.identity`, for calls that cut alone, as `refuse`.
   */
  idle(call: Counted, identity: string, now: number): void {
    if (call.kind !== 'cut' || this.#idle.take(identity, now)) return
    throw new RateRefusal(
      'rate.identity',
      'you have made as many calls of this kind (cut) that change nothing as one person may at a time',
      this.#idle.wait(identity, now),
    )
  }

  /** It was answered: what a witness's token let in costs its address nothing; what nobody let in does. */
  leave(call: Counted, status: number): void {
    if (status === 401 && call.key !== null) this.#fail(call.key)
    else if (status < 400 && call.signed && WITNESSED.has(call.route)) this.#giveBack(call)
  }

  #giveBack(call: Counted): void {
    if (call.taken) this.#strangers?.giveBack(call.source)
    call.taken = false
  }

  #accept(key: string): void {
    this.#accepted.delete(key)
    this.#accepted.set(key, 0)
    const [oldest] = this.#accepted.size > NAMES ? this.#accepted.keys() : []
    if (oldest !== undefined) this.#accepted.delete(oldest)
  }

  #fail(key: string): void {
    const failures = (this.#accepted.get(key) ?? FAILURES) + 1
    if (failures < FAILURES) this.#accepted.set(key, failures)
    else this.#accepted.delete(key)
  }
}

/** RFC 9110 10.2.3. */
export function sayWhen(reply: FastifyReply, refusal: Refusal): void {
  if (refusal instanceof RateRefusal) void reply.header('retry-after', String(refusal.retryAfterS))
}

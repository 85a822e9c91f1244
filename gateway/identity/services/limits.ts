/**
 * How services ask for tokens: what an assertion may claim beside its signature, and how many askings of one address fail
 * and of one service succeed, before more are told to wait.
 */
import { errors, Provider, type KoaContextWithOIDC } from 'oidc-provider'
import type { Setting } from '../setting.ts'
import type { Throttle } from '../store.ts'

/** RFC 7523 3: an assertion may be refused whose end is unreasonably far ahead. Its `jti` is remembered until then. */
const AHEAD_S = 300
/** How far the clock of a service may be apart. */
const TOLERANCE_S = 5
const JTI_LENGTH = 200

/** Tokens of one service in one minute: a program that runs a command a second, and room beside it. */
const TOKENS = { limit: 120, windowMs: 60_000 }
/** Askings in the name of a service that fail, from one address: closed for 15 minutes after the last that was looked at. */
const FAILED = { limit: 50, windowMs: 15 * 60_000 }

type Room = Pick<Setting, 'store' | 'now' | 'source'>

const failures = (source: string): Throttle => ({ key: `service-source:${source}`, ...FAILED })

/** Requests that were counted: a client is looked up more than once in one. */
const counted = new WeakSet<object>()

/** Counts who asks in the name of a service, before anything of it is looked at. Throws 429. */
export async function countAsking({ store, now, source }: Room): Promise<void> {
  const { ctx } = Provider
  if (ctx?.oidc.route !== 'token' || counted.has(ctx.req)) return
  counted.add(ctx.req)
  const taken = await store.take([failures(source(ctx.req))], now())
  if (!taken.allowed) throw tooMany(ctx, taken.retryAfterMs)
}

/** It was no failure. */
export async function askedWell(
  { store, source }: Room,
  { req }: KoaContextWithOIDC,
): Promise<void> {
  await store.settle([], [failures(source(req)).key])
}

/** Of an assertion whose signature is the service's. Throws `invalid_client`, and 429. */
export async function checkAssertion(
  room: Room,
  ctx: KoaContextWithOIDC,
  { exp, jti }: Readonly<Record<string, unknown>>,
  client: string,
): Promise<void> {
  const { store, now } = room
  const latest = now() / 1000 + AHEAD_S + TOLERANCE_S
  if (typeof exp !== 'number' || exp > latest)
    throw new errors.InvalidClientAuth('the assertion ends more than five minutes ahead')
  if (typeof jti !== 'string' || jti.length > JTI_LENGTH)
    throw new errors.InvalidClientAuth('the jti of the assertion is longer than 200 characters')
  const minute = Math.floor(now() / TOKENS.windowMs)
  const taken = await store.take([{ key: `service-token:${client}:${minute}`, ...TOKENS }], now())
  if (taken.allowed) return
  // Who signs well guesses nothing: a service that is in a hurry shuts no door of its address.
  await askedWell(room, ctx)
  throw tooMany(ctx, (minute + 1) * TOKENS.windowMs - now())
}

function tooMany(ctx: KoaContextWithOIDC, waitMs: number): Error {
  ctx.set('Retry-After', String(Math.max(1, Math.ceil(waitMs / 1000))))
  const error = new errors.CustomOIDCProviderError(
    'temporarily_unavailable',
    'too many tokens were asked for: wait for as long as Retry-After says',
  )
  return Object.assign(error, { status: 429, statusCode: 429 })
}

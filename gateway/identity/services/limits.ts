/**
 * How services ask for tokens: what an assertion may claim beside its signature, and how many askings of one address fail
 * and of one service succeed, before more are told to wait.
 */
import type { IncomingMessage } from 'node:http'
import { errors, Provider, type KoaContextWithOIDC } from 'oidc-provider'
import type { Context } from '../answer.ts'
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
/** Askings of one address that wait until those before them are proven or refused; more are told to come again. */
const MOST_IN_LINE = 500

type Room = Pick<Setting, 'store' | 'now' | 'source'>

const failures = (source: string): Throttle => ({ key: `service-source:${source}`, ...FAILED })

/** One request that was counted as a failure before it was looked at. */
interface Asking {
  readonly source: string
  /** Its signature is the service's: what was counted is given back. */
  proven: boolean
  readonly leave: () => void
}

/** By request: a client is looked up more than once in one. */
const askings = new WeakMap<IncomingMessage, Asking>()
/** By address: until one is through it counts as one that failed, and however many good ones at once shut nobody out. */
const lines = new Map<string, { last: Promise<void>; length: number }>()

/** Waits until nobody of this address is before it; gives how to leave, once. Undefined: the line is full. */
async function inLine(source: string): Promise<(() => void) | undefined> {
  const line = lines.get(source) ?? { last: Promise.resolve(), length: 0 }
  if (line.length >= MOST_IN_LINE) return undefined
  lines.set(source, line)
  const before = line.last
  const { promise, resolve } = Promise.withResolvers<void>()
  line.last = promise
  line.length++
  let left = false
  await before
  return () => {
    if (left) return
    left = true
    resolve()
    if (--line.length === 0) lines.delete(source)
  }
}

/** Counts who asks in the name of a service, before anything of it is looked at. Throws 429. */
export async function countAsking({ store, now, source: sourceOf }: Room): Promise<void> {
  const { ctx } = Provider
  if (ctx?.oidc.route !== 'token' || askings.has(ctx.req)) return
  const source = sourceOf(ctx.req)
  const leave = await inLine(source)
  if (leave === undefined) throw tooMany(ctx, 1_000)
  const taken = await store.take([failures(source)], now()).catch((error: unknown) => {
    leave()
    throw error
  })
  if (!taken.allowed) {
    leave()
    throw tooMany(ctx, taken.retryAfterMs)
  }
  askings.set(ctx.req, { source, proven: false, leave })
}

/** Of an assertion whose signature is the service's. Throws `invalid_client`, and 429. */
export async function checkAssertion(
  { store, now }: Pick<Room, 'store' | 'now'>,
  ctx: KoaContextWithOIDC,
  { exp, jti }: Readonly<Record<string, unknown>>,
  client: string,
): Promise<void> {
  const latest = now() / 1000 + AHEAD_S + TOLERANCE_S
  if (typeof exp !== 'number' || exp > latest)
    throw new errors.InvalidClientAuth('the assertion ends more than five minutes ahead')
  if (typeof jti !== 'string' || jti.length > JTI_LENGTH)
    throw new errors.InvalidClientAuth('the jti of the assertion is longer than 200 characters')
  const asking = askings.get(ctx.req)
  if (asking !== undefined) {
    // Who signs well guesses nothing: what still comes, the log above all, is no time to count it as a failure.
    await store.settle([], [failures(asking.source).key])
    asking.proven = true
    asking.leave()
  }
  const minute = Math.floor(now() / TOKENS.windowMs)
  const taken = await store.take([{ key: `service-token:${client}:${minute}`, ...TOKENS }], now())
  if (!taken.allowed) throw tooMany(ctx, (minute + 1) * TOKENS.windowMs - now())
}

/**
 * Around every request: one that was proven and is refused all the same (an assertion that was used) counts as a failure
 * after all, and one that failed by a fault of ours as none.
 */
export function settleAskings({ store, now }: Pick<Room, 'store' | 'now'>) {
  return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
    let status = 500
    try {
      await next()
      status = ctx.status
    } finally {
      const asking = askings.get(ctx.req)
      if (asking !== undefined) {
        const counter = failures(asking.source)
        const refused = status >= 400 && status < 500 && status !== 429
        try {
          if (asking.proven && refused) await store.take([counter], now())
          if (!asking.proven && !refused) await store.settle([], [counter.key])
        } finally {
          asking.leave()
        }
      }
    }
  }
}

function tooMany(ctx: KoaContextWithOIDC, waitMs: number): Error {
  ctx.set('Retry-After', String(Math.max(1, Math.ceil(waitMs / 1000))))
  const error = new errors.CustomOIDCProviderError(
    'temporarily_unavailable',
    'too many tokens were asked for: wait for as long as Retry-After says',
  )
  return Object.assign(error, { status: 429, statusCode: 429 })
}

/** A sign-in that asks for a code after the password, and what it does with one. */
import type { Provider } from 'oidc-provider'
import type { Context } from '../answer.ts'
import { enter, proven, recordLogin } from '../enter.ts'
import type { Problem } from '../pages.ts'
import { ACR_TOTP } from '../passkeys/credential.ts'
import {
  ask,
  frameOf,
  isAnother,
  otherAccount,
  type Details,
  type InteractionOptions,
} from '../question.ts'
import { codePage } from './page.ts'
import type { CodeAnswer } from './check.ts'

/** RFC 8176: what a password and a code together are. */
const METHODS = ['pwd', 'otp', 'mfa'] as const

interface Asked {
  readonly email: string
  /** Finds the question. */
  readonly secret: string
  readonly problem?: Problem
}

/** The page with the field for a code. */
export async function askCode(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  { email, secret, problem }: Asked,
): Promise<void> {
  ctx.type = 'html'
  const frame = await frameOf(provider, options, details)
  ctx.body = codePage({ ...frame, email, secret, problem: problem ?? null })
}

/** A code: right, the person is in; wrong, they are asked again, as often as the counters let them. Error: log.unavailable. */
export async function giveCode(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  form: ReadonlyMap<string, string>,
): Promise<void> {
  const secret = form.get('secret') ?? ''
  const source = options.source(ctx.req)
  const client = String(details.params['client_id'])
  const code = form.get('code') ?? ''
  const about = details.uid
  const answer = await options.totps.check({ secret, about, code, source, client })
  if (!answer.ok) {
    const problem = whyNot(answer, options.newId())
    if (answer.code === 'stale') return ask(ctx, provider, options, details, problem, 401)
    ctx.status = answer.code === 'locked' ? 429 : 401
    if (answer.retryAfterMs > 0)
      ctx.set('Retry-After', String(Math.ceil(answer.retryAfterMs / 1000)))
    return askCode(ctx, provider, options, details, { email: answer.email, secret, problem })
  }
  const { account } = answer
  const { sub } = account
  if (isAnother(details, sub)) return ask(ctx, provider, options, details, otherAccount, 409)
  const own = proven(options, METHODS, ACR_TOTP)
  await recordLogin(options, details, account, { source, methods: METHODS })
  return enter(ctx, provider, options, details, { sub, ...own })
}

function whyNot(answer: CodeAnswer & { ok: false }, id: string): Problem {
  const minutes = Math.max(1, Math.ceil(answer.retryAfterMs / 60_000))
  switch (answer.code) {
    case 'stale':
      return {
        message: 'This sign-in has waited too long for its code.',
        nextStep: 'Sign in again.',
        id: 'ceremony.unknown',
      }
    case 'wrong':
      return {
        message: 'The code is not right, or was used already.',
        nextStep: 'Wait for the next one, and check that the clock of your phone is right.',
        id: null,
      }
    case 'locked':
      return {
        message: 'There were too many attempts.',
        // Codes are asked for after the password: whoever typed them knows it, and an app that is taken off would let them in.
        nextStep: `Try again in ${minutes} ${minutes === 1 ? 'minute' : 'minutes'}. If it was not you who typed the codes, somebody knows your password: an administrator renews the account (sallyport account renew ${answer.email}).`,
        id,
      }
  }
}

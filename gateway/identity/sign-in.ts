/** Signing in by what this gateway knows of a person: a password, and the passkey of who has one. */
import type { Provider } from 'oidc-provider'
import { ACR_PASSWORD, loginThrottles, type LoginAnswer, type SecondFactors } from './attempt.ts'
import type { Context } from './answer.ts'
import { enter, proven, recordLogin } from './enter.ts'
import { IdentityError } from './errors.ts'
import type { Account } from './facts.ts'
import type { Problem } from './pages.ts'
import { secondFactorPage, SCRIPTED_POLICY, type SecondFactorPage } from './passkeys/page.ts'
import { ACR_PASSKEY, METHOD, readBrowserAnswer } from './passkeys/credential.ts'
import {
  ask,
  frameOf,
  isAnother,
  otherAccount,
  refuseStale,
  type Details,
  type InteractionOptions,
} from './question.ts'
import { askCode } from './totp/sign-in.ts'

/** An address and a password. Error: log.unavailable. */
export async function signIn(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  form: ReadonlyMap<string, string>,
): Promise<void> {
  const email = form.get('email') ?? ''
  const again = async (status: number, problem: Problem): Promise<void> =>
    ask(ctx, provider, options, details, problem, status, email.slice(0, 320))
  const answer = await options.accounts.login({
    email,
    password: (form.get('password') ?? '').slice(0, 1024),
    source: options.source(ctx.req),
    client: String(details.params['client_id']),
    asksMore: async ({ sub }) => secondFactorsOf(options, sub),
  })
  if (!answer.ok) {
    if (answer.retryAfterMs > 0)
      ctx.set('Retry-After', String(Math.ceil(answer.retryAfterMs / 1000)))
    return again(answer.code === 'login.failed' ? 401 : 429, whyNot(answer, options.newId()))
  }
  const { sub } = answer.account
  if (isAnother(details, sub)) return again(409, otherAccount)
  if (answer.more.passkey || answer.more.code)
    return askSecond(ctx, provider, options, details, answer.account, answer.more)
  const own = proven(options, ['pwd'], ACR_PASSWORD)
  return enter(ctx, provider, options, details, { sub, ...own })
}

async function secondFactorsOf(
  { passkeys, totps }: InteractionOptions,
  sub: string,
): Promise<SecondFactors> {
  const [held, totp] = await Promise.all([passkeys.list(sub), totps.find(sub)])
  return { passkey: held.length > 0, code: totp !== undefined }
}

/** Who has a second factor shows it after the password: without it, the password alone would be enough after all. */
async function askSecond(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  { sub, email }: Account,
  { passkey, code }: SecondFactors,
): Promise<void> {
  const question = code ? await options.totps.ask(sub, details.uid) : null
  if (!passkey) return askCode(ctx, provider, options, details, { email, secret: question ?? '' })
  const asked = { kind: 'sign_in', sub, login: null, about: details.uid } as const
  const { secret, options: request } = await options.passkeys.ask(asked)
  const shown = { email, secret, options: request, code: question }
  await showQuestion(ctx, provider, options, details, shown)
}

async function showQuestion(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  asked: Pick<SecondFactorPage, 'email' | 'secret' | 'options' | 'code'>,
): Promise<void> {
  ctx.type = 'html'
  ctx.set('Content-Security-Policy', SCRIPTED_POLICY)
  ctx.body = secondFactorPage({ ...(await frameOf(provider, options, details)), ...asked })
}

/** No address, no password: whoever holds a passkey of this site is asked for it. */
export async function askAlone(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
): Promise<void> {
  const attempt = { about: details.uid, source: options.source(ctx.req) }
  const asked = await refusalOf(options.passkeys.askAnybody(attempt))
  if (asked instanceof IdentityError) {
    const problem = { message: asked.message, nextStep: asked.nextStep, id: asked.code }
    return ask(ctx, provider, options, details, problem, asked.status)
  }
  const { secret, options: request } = asked
  const shown = { email: null, secret, options: request, code: null }
  await showQuestion(ctx, provider, options, details, shown)
}

/** Its answer: the passkey says who it is, and is the whole proof. */
export async function showAlone(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  form: ReadonlyMap<string, string>,
): Promise<void> {
  const credential = readBrowserAnswer(form.get('credential') ?? '')
  if (credential === undefined)
    return ask(ctx, provider, options, details, noPasskey('assertion.malformed'), 401)
  const source = options.source(ctx.req)
  const client = String(details.params['client_id'])
  const attempt = { about: details.uid, source, client }
  const secret = form.get('secret') ?? ''
  const account = await refusalOf(options.passkeys.answerAlone(secret, credential, attempt))
  if (account instanceof IdentityError) {
    const fault = account.fault ?? account.code
    const problem = fault === 'passkey.second' ? passwordToo : noPasskey(fault)
    return ask(ctx, provider, options, details, problem, 401)
  }
  const { sub } = account
  if (isAnother(details, sub)) return ask(ctx, provider, options, details, otherAccount, 409)
  const own = proven(options, [METHOD], ACR_PASSKEY)
  await recordLogin(options, details, account, { source, methods: own.methods })
  return enter(ctx, provider, options, details, { sub, ...own })
}

/** What was asked for, or the refusal that a person is to read. Throws what is a fault of ours. */
async function refusalOf<T>(asked: Promise<T>): Promise<T | IdentityError> {
  return asked.catch((error: unknown) => {
    if (error instanceof IdentityError && error.status < 500) return error
    throw error
  })
}

export async function showPasskey(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  form: ReadonlyMap<string, string>,
): Promise<void> {
  const credential = readBrowserAnswer(form.get('credential') ?? '')
  const secret = form.get('secret') ?? ''
  if (credential === undefined)
    return ask(ctx, provider, options, details, noPasskey('assertion.malformed'), 401)
  const source = options.source(ctx.req)
  const answered = await refusalOf(options.passkeys.answer(secret, ['sign_in'], credential, source))
  if (answered instanceof IdentityError)
    return ask(ctx, provider, options, details, noPasskey(answered.fault ?? answered.code), 401)
  const { account, about } = answered
  // The password was given in this very sign-in, by this person.
  if (about !== details.uid) return refuseStale(ctx, options)
  if (isAnother(details, account.sub))
    return ask(ctx, provider, options, details, otherAccount, 409)
  const own = proven(options, ['pwd', METHOD], ACR_PASSKEY)
  await recordLogin(options, details, account, { source, methods: own.methods })
  // Wrong codes of before are forgotten, as by a right one; those that are counted whatever the source are not.
  const [pair] = loginThrottles(account.email, source)
  await options.store.settle([pair.key], [])
  return enter(ctx, provider, options, details, { sub: account.sub, ...own })
}

const passwordToo: Problem = {
  message: 'This account has a password too, and asks for both.',
  nextStep: 'Sign in with the address and the password; the passkey is asked for after it.',
  id: 'passkey.second',
}

const noPasskey = (code: string): Problem => ({
  message: 'The passkey was not accepted.',
  nextStep:
    'Sign in again; if it stays, an administrator can send you a link by which you choose a new one.',
  id: code,
})

function whyNot(answer: LoginAnswer & { ok: false }, id: string): Problem {
  const minutes = Math.max(1, Math.ceil(answer.retryAfterMs / 60_000))
  switch (answer.code) {
    case 'login.failed':
      return {
        message: 'The address and the password do not belong together, or the account is disabled.',
        nextStep:
          'Check both; an administrator can send you a link by which you choose a new password.',
        id: null,
      }
    case 'login.locked':
      return {
        message: 'There were too many attempts.',
        nextStep: `Try again in ${minutes} ${minutes === 1 ? 'minute' : 'minutes'}.`,
        id,
      }
    case 'login.busy':
      return {
        message: 'Too many people are signing in at this moment.',
        nextStep: 'Try again in a few seconds.',
        id,
      }
  }
}

/** What happens between the provider's question and its answer: signing in, agreeing, signing out. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { InteractionResults, KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { Account, LoginAnswer } from './accounts.ts'
import { sendError, type Context } from './answer.ts'
import { IdentityError } from './errors.ts'
import type { IdentityLog } from './events.ts'
import { readForm } from './form.ts'
import { leave, returned, type Returned } from './idp/flow.ts'
import {
  companyPage,
  consentPage,
  loginPage,
  signedOutPage,
  signOutPage,
  type Problem,
} from './pages.ts'
import { secondFactorPage, SCRIPTED_POLICY } from './passkeys/page.ts'
import { ACR_PASSKEY, METHOD, readBrowserAnswer } from './passkeys/passkeys.ts'
import type { Setting } from './setting.ts'

export interface InteractionOptions extends Setting {
  /** Signs the hidden field of every form. */
  readonly formKey: string
}

type Details = Awaited<ReturnType<Provider['interactionDetails']>>
type Session = Awaited<ReturnType<Provider['Session']['get']>>

/** The acr of somebody who gave a password and nothing else. */
const ACR_PASSWORD = 'urn:sallyport:acr:password'
/** The one scope of the API; what a person may do there is decided by policy, not by scopes. */
export const API_SCOPE = 'api'

export interface Pages {
  /** GET and POST of `/interaction/<uid>`. */
  interact(ctx: Context, uid: string): Promise<void>
  /** GET of `/interaction/<uid>/via/<idp>`: on to the company's provider. Throws IdpError. */
  leave(ctx: Context, uid: string, idp: string): Promise<void>
  /** GET of `/interaction/<uid>/returned`: back from it, and in. Throws IdpError. */
  arrive(ctx: Context, uid: string): Promise<void>
  /** GET and POST of `/sign-out`. */
  signOut(ctx: Context): Promise<void>
}

/** The handlers for one provider. */
export function createPages(provider: Provider, options: InteractionOptions): Pages {
  return {
    async interact(ctx, uid) {
      const details = await provider.interactionDetails(ctx.req, ctx.res)
      if (details.uid !== uid) return refuseStale(ctx, options)
      if (ctx.method !== 'POST') return ask(ctx, provider, options, details, null, 200)
      const form = await readForm(ctx.req)
      const csrf = form?.get('csrf') ?? ''
      if (form === undefined || !isToken(options, `interaction:${uid}`, csrf))
        return refuseStale(ctx, options)
      const act = acts[form.get('do') ?? '']
      if (act === undefined || (act.prompt !== null && act.prompt !== details.prompt.name))
        return refuseStale(ctx, options)
      return act.run(ctx, provider, options, details, form)
    },
    async leave(ctx, uid, idp) {
      const details = await provider.interactionDetails(ctx.req, ctx.res)
      if (details.uid !== uid || details.prompt.name !== 'login') return refuseStale(ctx, options)
      const { hint } = ctx.query
      const client = String(details.params['client_id'])
      const email = typeof hint === 'string' && hint.length <= 320 ? hint : null
      const maxAge = maxAgeOf(details)
      await leave(options, ctx, { idp, uid, client, hint: email, maxAge })
    },
    async arrive(ctx, uid) {
      const details = await provider.interactionDetails(ctx.req, ctx.res)
      if (details.uid !== uid || details.prompt.name !== 'login') return refuseStale(ctx, options)
      const { ticket } = ctx.query
      const who = await returned(options, uid, typeof ticket === 'string' ? ticket : '')
      if (isAnother(details, who.account.sub)) {
        sendError(ctx, options, anotherHere)
        return
      }
      await enter(ctx, provider, options, details, { ...who, sub: who.account.sub })
    },
    signOut: async (ctx) => signOut(ctx, provider, options),
  }
}

/** How fresh the program wants the proof of who somebody is; null: as it comes. Seconds. */
function maxAgeOf({ params }: Details): number | null {
  const { prompt, max_age: maxAge } = params
  if (typeof prompt === 'string' && prompt.split(' ').includes('login')) return 0
  // A program that asks for what cannot be read gets the strictest.
  if (maxAge === undefined) return null
  const seconds = Number(maxAge)
  return Number.isSafeInteger(seconds) && seconds >= 0 ? seconds : 0
}

const anotherHere = {
  status: 409,
  title: 'Another person is signed in in this browser',
  message: 'Your company signed you in, but somebody else is signed in here.',
  nextStep: 'Sign out first (/oidc/sign-out), then start again in your program.',
  code: 'login.other',
} as const

const staleForm = {
  status: 403,
  title: 'This form is out of date',
  message: 'The form was not the one this sign-in is waiting for.',
  nextStep: 'Go back to the program you came from and start again.',
  code: 'form.stale',
} as const

function refuseStale(ctx: Context, options: InteractionOptions): void {
  sendError(ctx, options, staleForm)
}

interface Act {
  /** The question it answers; null: any. */
  readonly prompt: string | null
  readonly run: (
    ctx: Context,
    provider: Provider,
    options: InteractionOptions,
    details: Details,
    form: ReadonlyMap<string, string>,
  ) => Promise<void>
}

const acts: Readonly<Record<string, Act>> = {
  login: { prompt: 'login', run: signIn },
  passkey: { prompt: 'login', run: showPasskey },
  company: { prompt: 'login', run: findCompany },
  consent: { prompt: 'consent', run: consent },
  abort: {
    prompt: null,
    async run(ctx, provider) {
      const refusal = { error: 'access_denied', error_description: 'refused by the person' }
      await finish(ctx, provider, refusal, false)
    },
  },
}

/** Renders the question that the provider has. */
async function ask(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  problem: Problem | null,
  status: number,
  typed = '',
): Promise<void> {
  const { base } = options
  const client = await clientName(provider, details)
  const action = `${base}/interaction/${details.uid}`
  const common = { base, action, csrf: token(options, `interaction:${details.uid}`), client }
  ctx.status = status
  ctx.type = 'html'
  if (details.prompt.name === 'login') {
    const email = typed === '' ? suggested(details) : typed
    const listed = await options.idps.listed()
    const companies = listed.map(({ id, name }) => ({ name, href: `${action}/via/${id}` }))
    ctx.body = loginPage({ ...common, email, problem, companies })
    return
  }
  const account = await options.accounts.find(details.session?.accountId ?? '')
  ctx.body = consentPage({ ...common, email: account?.email ?? '' })
}

function suggested(details: Details): string {
  const hint = details.params['login_hint']
  return typeof hint === 'string' ? hint.slice(0, 320) : ''
}

async function clientName(provider: Provider, details: Details): Promise<string> {
  const client = await provider.Client.find(String(details.params['client_id']))
  return client?.clientName ?? client?.clientId ?? 'this program'
}

async function signIn(
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
    asksMore: async ({ sub }) => (await options.passkeys.list(sub)).length > 0,
  })
  if (!answer.ok) {
    if (answer.retryAfterMs > 0)
      ctx.set('Retry-After', String(Math.ceil(answer.retryAfterMs / 1000)))
    return again(answer.code === 'login.failed' ? 401 : 429, whyNot(answer, options.newId()))
  }
  const { sub } = answer.account
  if (isAnother(details, sub)) return again(409, otherAccount)
  if (answer.more) return askPasskey(ctx, provider, options, details, answer.account)
  const at = Math.floor(options.now() / 1000)
  const own = { methods: ['pwd'], acr: ACR_PASSWORD, at, loginSeconds: options.lifetimes.login }
  return enter(ctx, provider, options, details, { sub, ...own })
}

/** Who has a passkey shows it after the password: without it, the password alone would be enough after all. */
async function askPasskey(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  { sub, email }: Account,
): Promise<void> {
  const question = { kind: 'sign_in', sub, login: null, about: details.uid } as const
  const { secret, options: asked } = await options.passkeys.ask(question)
  const { base } = options
  ctx.type = 'html'
  ctx.set('Content-Security-Policy', SCRIPTED_POLICY)
  ctx.body = secondFactorPage({
    base,
    action: `${base}/interaction/${details.uid}`,
    csrf: token(options, `interaction:${details.uid}`),
    client: await clientName(provider, details),
    email,
    secret,
    options: asked,
  })
}

async function showPasskey(
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
  const answered = await options.passkeys
    .answer(secret, ['sign_in'], credential, source)
    .catch((error: unknown) => {
      if (error instanceof IdentityError && error.status < 500) return error
      throw error
    })
  if (answered instanceof IdentityError)
    return ask(ctx, provider, options, details, noPasskey(answered.fault ?? answered.code), 401)
  const { account, about } = answered
  // The password was given in this very sign-in, by this person.
  if (about !== details.uid) return refuseStale(ctx, options)
  if (isAnother(details, account.sub))
    return ask(ctx, provider, options, details, otherAccount, 409)
  const at = Math.floor(options.now() / 1000)
  const own = { methods: ['pwd', METHOD], acr: ACR_PASSKEY, at }
  await record(options, {
    source,
    subject: `${options.issuer}|${account.sub}`,
    party: account.party,
    email: account.email,
    client: String(details.params['client_id']),
    methods: own.methods,
  })
  const loginSeconds = options.lifetimes.login
  return enter(ctx, provider, options, details, { sub: account.sub, ...own, loginSeconds })
}

const noPasskey = (code: string): Problem => ({
  message: 'The passkey was not accepted.',
  nextStep: 'Sign in again; if it stays, an administrator can take it off your account.',
  id: code,
})

/** The provider would have to end the other person's session first; better they do it themselves. */
function isAnother({ session }: Details, sub: string): boolean {
  return session !== undefined && session.accountId !== sub
}

/** Somebody has proven who they are: the provider goes on. */
async function enter(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  who: Omit<Returned, 'account'> & { readonly sub: string },
): Promise<void> {
  const { sub, methods, acr, at } = who
  const loginSeconds = Math.min(who.loginSeconds, options.lifetimes.login)
  const login = { accountId: sub, amr: [...methods], acr, remember: false, ts: at }
  // By a device code they have agreed already: the page before this one named the client and the code.
  if (details.deviceCode === undefined) return finish(ctx, provider, { login }, false)
  const grantId = await grantWhatWasAsked(provider, options, details, sub, loginSeconds)
  return finish(ctx, provider, { login, consent: { grantId } }, false)
}

const COMPANY_WINDOW_MS = 10 * 60_000
/** Addresses of no company that one source may try in that time; one of a company costs nothing. */
const COMPANIES_ASKED = 30

/** From an address to the company that signs it in. Who tries addresses to learn who the vendors are is slowed down. */
async function findCompany(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  form: ReadonlyMap<string, string>,
): Promise<void> {
  const email = (form.get('email') ?? '').slice(0, 320)
  const key = `company:${options.source(ctx.req)}`
  const throttle = { key, limit: COMPANIES_ASKED, windowMs: COMPANY_WINDOW_MS }
  const { allowed, retryAfterMs } = await options.store.take([throttle], options.now())
  if (!allowed) {
    ctx.set('Retry-After', String(Math.ceil(retryAfterMs / 1000)))
    return ask(ctx, provider, options, details, tooManyCompanies, 429, email)
  }
  const idp = await options.idps.forAddress(email)
  if (idp === undefined) return ask(ctx, provider, options, details, noCompany, 404, email)
  await options.store.settle([], [key])
  const { base } = options
  const back = `${base}/interaction/${details.uid}`
  ctx.type = 'html'
  ctx.body = companyPage({
    base,
    name: idp.name,
    host: new URL(idp.issuer).host,
    href: `${back}/via/${idp.id}?hint=${encodeURIComponent(email)}`,
    back,
  })
}

const noCompany: Problem = {
  message: 'No company signs in addresses like this one here.',
  nextStep: 'Check the address, or use the password you were given.',
  id: null,
}
const tooManyCompanies: Problem = {
  message: 'From your network, too many addresses were tried.',
  nextStep: 'Try again in ten minutes.',
  id: null,
}

const otherAccount: Problem = {
  message: 'Another person is signed in in this browser.',
  nextStep: 'Sign out first, then start again.',
  id: null,
}

function whyNot(answer: LoginAnswer & { ok: false }, id: string): Problem {
  const minutes = Math.max(1, Math.ceil(answer.retryAfterMs / 60_000))
  switch (answer.code) {
    case 'login.failed':
      return {
        message: 'The address and the password do not belong together, or the account is disabled.',
        nextStep: 'Check both; an administrator can set a new password.',
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

async function consent(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
): Promise<void> {
  const { session } = details
  const account = await options.accounts.find(session?.accountId ?? '')
  if (session === undefined || account === undefined || account.disabled)
    return refuseStale(ctx, options)
  // A password given a moment ago for this very request is on record; one given earlier is a new login.
  if (details.lastSubmission?.login === undefined) {
    await record(options, {
      source: options.source(ctx.req),
      subject: `${options.issuer}|${account.sub}`,
      email: account.email,
      party: account.party,
      client: String(details.params['client_id']),
      methods: session.amr ?? [],
    })
  }
  const seconds = await loginSecondsOf(options, account)
  const grantId = await grantWhatWasAsked(provider, options, details, account.sub, seconds)
  return finish(ctx, provider, { consent: { grantId } }, true)
}

/** How long a login of this account may be refreshed: what its company's provider is given, or a working day. */
async function loginSecondsOf(
  { idps, lifetimes }: InteractionOptions,
  { outside }: Account,
): Promise<number> {
  const idp = outside === null ? undefined : await idps.find(outside.idp)
  return Math.min(idp?.loginSeconds ?? lifetimes.login, lifetimes.login)
}

async function record(
  { log, now }: InteractionOptions,
  facts: Omit<
    Extract<Parameters<IdentityLog>[0], { code: 'auth.login' }>,
    'code' | 'at' | 'outcome' | 'reason'
  >,
): Promise<void> {
  try {
    await log({ code: 'auth.login', at: now(), outcome: 'success', reason: null, ...facts })
  } catch (cause) {
    throw new IdentityError('log.unavailable', { cause })
  }
}

/** A new grant for exactly what the client asked for; its id names the login. */
async function grantWhatWasAsked(
  provider: Provider,
  { audience }: InteractionOptions,
  details: Details,
  accountId: string,
  seconds: number,
): Promise<string> {
  const { params } = details
  const grant = new provider.Grant({ accountId, clientId: String(params['client_id']) })
  // Every token of a login ends with its grant.
  Object.assign(grant, { expiresIn: seconds })
  const scopes = typeof params['scope'] === 'string' ? params['scope'].split(' ') : []
  const openid = scopes.filter((scope) => scope !== API_SCOPE)
  if (openid.length > 0) grant.addOIDCScope(openid)
  if (scopes.includes(API_SCOPE)) grant.addResourceScope(audience, API_SCOPE)
  return grant.save()
}

async function finish(
  ctx: Context,
  provider: Provider,
  result: InteractionResults,
  merge: boolean,
): Promise<void> {
  const merging = { mergeWithLastSubmission: merge }
  const to = await provider.interactionResult(ctx.req, ctx.res, result, merging)
  ctx.status = 303
  ctx.redirect(to)
}

async function signOut(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
): Promise<void> {
  const session = await provider.Session.get(ctx as KoaContextWithOIDC)
  const account = await options.accounts.find(session.accountId ?? '')
  const purpose = `sign-out:${session.uid}`
  ctx.type = 'html'
  if (ctx.method !== 'POST' || account === undefined) {
    ctx.body = signOutPage(options.base, token(options, purpose), account?.email ?? null)
    return
  }
  const form = await readForm(ctx.req)
  if (form === undefined || !isToken(options, purpose, form.get('csrf') ?? ''))
    return refuseStale(ctx, options)
  for (const login of loginsOf(session)) await options.endLogin(login)
  await session.destroy()
  ctx.cookies.set(provider.cookieName('session'), null, { path: '/', httpOnly: true })
  ctx.body = signedOutPage(options.base)
}

/** The logins that end with the browser's session: those without offline access. */
function loginsOf({ authorizations }: Session): readonly string[] {
  return Object.values(authorizations ?? {})
    .filter(({ persistsLogout }) => persistsLogout !== true)
    .map(({ grantId }) => grantId)
    .filter((grantId) => grantId !== undefined)
}

/** Bound to one purpose, so that a form of one page cannot be sent as another's. */
function token({ formKey }: InteractionOptions, purpose: string): string {
  return createHmac('sha256', formKey).update(`form:${purpose}`).digest('base64url')
}

function isToken(options: InteractionOptions, purpose: string, given: string): boolean {
  const expected = Buffer.from(token(options, purpose))
  const actual = Buffer.from(given)
  return actual.length === expected.length && timingSafeEqual(actual, expected)
}

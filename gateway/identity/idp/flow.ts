/**
 * There and back: a person leaves our sign-in page for their company's provider and comes back with its answer.
 * What ties the two together is a secret in this browser, a state that is good once, and an address of return that
 * belongs to one provider alone (RFC 9700 2.1, 4.4; RFC 9207).
 */
import { randomBytes } from 'node:crypto'
import { IdentityError } from '../errors.ts'
import type { LoginEvent } from '../events.ts'
import { readForm } from '../form.ts'
import { sendError, type Context } from '../answer.ts'
import type { Setting } from '../setting.ts'
import type { IdpRow } from '../store.ts'
import type { Account } from '../facts.ts'
import { readPerson, SKEW_S, type Asked } from './claims.ts'
import { IdpError, idpRows } from './errors.ts'
import { redirectUriOf } from './idps.ts'
import { hash, logoutProblem, sessionId } from './logout.ts'

// __Host-: a page on a sibling host name cannot plant one.
const COOKIE = '__Host-sallyport-idp'
const WAIT_MS = 10 * 60_000
/** From our address of return to our own page: one redirect. */
const TICKET_MS = 60_000
/** The acr of somebody whom their company signed in. */
const ACR_FEDERATED = 'urn:sallyport:acr:federated'

/** Somebody who came back and was let in: what ends the interaction they started. */
export interface Returned {
  readonly account: Account
  readonly methods: readonly string[]
  readonly acr: string
  /** Epoch seconds. */
  readonly at: number
  readonly loginSeconds: number
}

/** Sends the browser to the provider. `uid` is the interaction it belongs to. Throws IdpError. */
export async function leave(
  setting: Setting,
  ctx: Context,
  to: {
    readonly idp: string
    readonly uid: string
    readonly client: string
    readonly hint: string | null
    /** Seconds, as the program asks (`max_age`, or 0 for `prompt=login`); null: it does not. */
    readonly maxAge: number | null
  },
): Promise<void> {
  const idp = await setting.idps.find(to.idp)
  if (idp === undefined) throw new IdpError('idp.unknown')
  const redirectUri = redirectUriOf(setting.issuer, idp.id)
  const lasts = Math.min(idp.loginSeconds, setting.lifetimes.login)
  // Less than clocks may differ by means now.
  const maxAge = (to.maxAge ?? lasts) < SKEW_S ? 0 : Math.min(to.maxAge ?? lasts, lasts)
  const wish = { hint: to.hint, maxAge }
  const { url, state, nonce, verifier } = await setting.idps.relying.begin(idp, redirectUri, wish)
  const browser =
    ctx.cookies.get(COOKIE, { signed: false }) ?? randomBytes(32).toString('base64url')
  const at = setting.now()
  const expiresAt = at + WAIT_MS
  await setting.oidcStore.upsert({
    model: 'IdpState',
    id: hash(state),
    payload: {
      idp: idp.id,
      issuer: idp.issuer,
      interaction: to.uid,
      client: to.client,
      state,
      nonce,
      verifier,
      browser: hash(browser),
      at,
      maxAge,
      until: expiresAt,
    },
    expiresAt,
  })
  setCookie(ctx, browser)
  ctx.status = 303
  ctx.redirect(url)
}

function setCookie(ctx: Context, value: string): void {
  // Lax: it must come along when the provider sends the browser back.
  ctx.cookies.set(COOKIE, value, {
    path: '/',
    httpOnly: true,
    secure: true,
    sameSite: 'lax',
    signed: false,
    overwrite: true,
  })
}

type Told = Pick<LoginEvent, 'email' | 'subject' | 'party' | 'client'>
type Writable<T> = { -readonly [K in keyof T]: T[K] }

/** Answers that belong to no sign-in here, which are recorded of one source within ten minutes. */
const STRAY = { limit: 30, windowMs: 10 * 60_000 }

/**
 * GET `/idp/<id>/callback`: the provider's answer. Every end of it is recorded, but for those of a source that goes on
 * bringing answers to nothing: a stranger fills no log, and locks nobody out.
 */
export async function comeBack(setting: Setting, ctx: Context, id: string): Promise<void> {
  const facts: Writable<Told> = { email: null, subject: null, party: null, client: null }
  try {
    const waiting = await takeState(setting, ctx, id)
    facts.client = waiting.client
    const idp = await setting.idps.find(id)
    if (idp === undefined || idp.issuer !== waiting.issuer) throw new IdpError('idp.unknown')
    const { relying } = setting.idps
    const current = new URL(redirectUriOf(setting.issuer, id))
    current.search = ctx.search
    const claims = await relying.redeem(idp, current, waiting, setting.now())
    const person = readPerson(idp, claims, waiting.asked, setting.now())
    facts.email = person.email
    const source = setting.source(ctx.req)
    const account = await setting.idps.admit(idp, person, source)
    facts.subject = `${setting.issuer}|${account.sub}`
    facts.party = account.party
    await tell(setting, ctx, id, facts, person.methods, null)
    const ticket = await keep(setting, idp, waiting.interaction, account, person)
    ctx.status = 303
    ctx.redirect(`${setting.base}/interaction/${waiting.interaction}/returned?ticket=${ticket}`)
  } catch (error) {
    if (!(error instanceof IdpError)) throw error
    const key = `idp-answer:${setting.source(ctx.req)}`
    const stray = error.code === 'idp.state'
    const counted = stray && (await setting.store.take([{ key, ...STRAY }], setting.now()))
    if (counted === false || counted.allowed) await tell(setting, ctx, id, facts, [], error)
    refuse(setting, ctx, error)
  }
}

/** The page of a sign-in that failed; the cause goes to the node's own log under the same id. */
export function refuse(setting: Setting, ctx: Context, error: IdpError): void {
  const row = idpRows[error.code]
  const id = sendError(ctx, setting, { ...row, code: error.code })
  if (row.status >= 500) setting.report(error, id)
}

interface Waiting {
  readonly issuer: string
  readonly interaction: string
  readonly client: string
  readonly state: string
  readonly nonce: string
  readonly verifier: string
  readonly asked: Asked
}

/** The sign-in that this answer belongs to, taken so that no second answer finds it. */
async function takeState({ oidcStore, now }: Setting, ctx: Context, id: string): Promise<Waiting> {
  const { searchParams } = new URL(ctx.search, 'https://answer.invalid')
  const names = [...searchParams.keys()]
  // RFC 6749 3.1: a parameter comes once.
  if (new Set(names).size !== names.length) throw new IdpError('idp.state', 'parameter twice')
  const state = searchParams.get('state') ?? ''
  const row = await oidcStore.find('IdpState', hash(state))
  if (row === undefined) throw new IdpError('idp.state', 'unknown')
  const { idp, issuer, interaction, client, nonce, verifier, browser, until, at, maxAge } = row
  if (typeof until !== 'number' || until <= now()) throw new IdpError('idp.state', 'expired')
  const cookie = ctx.cookies.get(COOKIE, { signed: false })
  if (cookie === undefined || hash(cookie) !== browser) throw new IdpError('idp.state', 'browser')
  if (idp !== id) throw new IdpError('idp.mixup', 'address')
  if (!(await oidcStore.consume('IdpState', hash(state), Math.floor(now() / 1000))))
    throw new IdpError('idp.state', 'used')
  const texts = { issuer, interaction, client, state, nonce, verifier }
  if (!isTexts(texts) || typeof at !== 'number' || typeof maxAge !== 'number')
    throw new IdpError('idp.state', 'malformed')
  return { ...texts, asked: { at, maxAge } }
}

function isTexts<K extends string>(row: Record<K, unknown>): row is Record<K, string> {
  return Object.values(row).every((value) => typeof value === 'string')
}

/** Notes who came back, for the page that ends the interaction, and the provider's session for its logout. */
async function keep(
  { oidcStore, now }: Setting,
  idp: IdpRow,
  interaction: string,
  account: Account,
  person: ReturnType<typeof readPerson>,
): Promise<string> {
  const ticket = randomBytes(32).toString('base64url')
  const until = now() + TICKET_MS
  const { methods, at, sid } = person
  const facts = { accountId: account.sub, methods, at, loginSeconds: idp.loginSeconds }
  await oidcStore.upsert({
    model: 'IdpReturn',
    id: hash(ticket),
    payload: { interaction, until, ...facts },
    expiresAt: until,
  })
  if (sid !== null)
    await oidcStore.upsert({
      model: 'IdpSession',
      id: sessionId(idp, sid),
      payload: { accountId: account.sub },
      // As long as a login of theirs may last that began at the end of another.
      expiresAt: now() + 2 * idp.loginSeconds * 1000,
    })
  return ticket
}

/** Who came back for this interaction. Throws IdpError: idp.state, idp.disabled. */
export async function returned(
  { oidcStore, accounts, now }: Setting,
  uid: string,
  ticket: string,
): Promise<Returned> {
  const row = await oidcStore.find('IdpReturn', hash(ticket))
  if (row === undefined || row['interaction'] !== uid) throw new IdpError('idp.state', 'ticket')
  const { until, accountId, methods, at, loginSeconds } = row
  if (typeof until !== 'number' || until <= now()) throw new IdpError('idp.state', 'expired')
  if (!(await oidcStore.consume('IdpReturn', hash(ticket), Math.floor(now() / 1000))))
    throw new IdpError('idp.state', 'used')
  const account = typeof accountId === 'string' ? await accounts.find(accountId) : undefined
  if (account === undefined || account.disabled) throw new IdpError('idp.disabled')
  if (!Array.isArray(methods) || typeof at !== 'number' || typeof loginSeconds !== 'number')
    throw new IdpError('idp.state', 'malformed')
  return { account, methods: methods.map(String), acr: ACR_FEDERATED, at, loginSeconds }
}

async function tell(
  { log, now, source }: Setting,
  ctx: Context,
  idp: string,
  facts: Told,
  methods: readonly string[],
  error: IdpError | null,
): Promise<void> {
  try {
    await log({
      code: 'auth.login',
      at: now(),
      source: source(ctx.req),
      outcome: error === null ? 'success' : 'failure',
      ...facts,
      methods,
      reason: error?.code ?? null,
      idp,
      ...(typeof error?.detail === 'string' ? { detail: error.detail } : {}),
    })
  } catch (cause) {
    throw new IdentityError('log.unavailable', { cause })
  }
}

/** Bad tokens that one source may send within ten minutes: each costs a look at the keys. */
const BAD_TOKENS = { limit: 60, windowMs: 10 * 60_000 }

/** POST `/idp/<id>/logout`: from the provider itself, no browser, no cookie. */
export async function hearLogout(setting: Setting, ctx: Context, id: string): Promise<void> {
  const source = setting.source(ctx.req)
  const key = `idp-logout:${source}`
  const { allowed, retryAfterMs } = await setting.store.take(
    [{ key, ...BAD_TOKENS }],
    setting.now(),
  )
  if (!allowed) {
    ctx.set('Retry-After', String(Math.ceil(retryAfterMs / 1000)))
    ctx.status = 429
    ctx.body = { error: 'slow_down', error_description: 'too many tokens that were not good' }
    return
  }
  try {
    const idp = await setting.idps.find(id)
    const token = (await readForm(ctx.req))?.get('logout_token')
    if (idp === undefined || token === undefined) throw new IdpError('idp.token', 'none')
    await setting.idps.logout(idp, token, source)
    await setting.store.settle([], [key])
    ctx.status = 200
    ctx.body = ''
  } catch (error) {
    const { status, body } = logoutProblem(error)
    if (status >= 500) setting.report(error, setting.newId())
    ctx.status = status
    ctx.body = body
  }
}

/** Somebody has proven who they are: the login is recorded, and the provider goes on. */
import type { InteractionResults, Provider } from 'oidc-provider'
import type { Context } from './answer.ts'
import { record, type LoginEvent } from './events.ts'
import type { Account } from './facts.ts'
import type { Returned } from './idp/flow.ts'
import type { Details, InteractionOptions } from './question.ts'

/** The one scope of the API; what a person may do there is decided by policy, not by scopes. */
export const API_SCOPE = 'api'

/** Somebody has proven who they are: the provider goes on. */
export async function enter(
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

/** How long a login of this account may be refreshed: what its company's provider is given, or a working day. */
export async function loginSecondsOf(
  { idps, lifetimes }: InteractionOptions,
  { outside }: Account,
): Promise<number> {
  const idp = outside === null ? undefined : await idps.find(outside.idp)
  return Math.min(idp?.loginSeconds ?? lifetimes.login, lifetimes.login)
}

/** What a login here shows of itself: as of now, and for a working day. */
export function proven(
  { lifetimes, now }: InteractionOptions,
  methods: readonly string[],
  acr: string,
): Omit<Returned, 'account'> {
  return { methods, acr, at: Math.floor(now() / 1000), loginSeconds: lifetimes.login }
}

/** A login that succeeded. Error: log.unavailable. */
export async function recordLogin(
  { issuer, log, now }: InteractionOptions,
  details: Details,
  { sub, party, email }: Account,
  how: Pick<LoginEvent, 'source' | 'methods'>,
): Promise<void> {
  const subject = `${issuer}|${sub}`
  const client = String(details.params['client_id'])
  const facts = { ...how, subject, party, email, client }
  await record(log, { code: 'auth.login', at: now(), outcome: 'success', reason: null, ...facts })
}

/** A new grant for exactly what the client asked for; its id names the login. */
export async function grantWhatWasAsked(
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

export async function finish(
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

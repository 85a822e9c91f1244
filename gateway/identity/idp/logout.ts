/** OpenID Connect Back-Channel Logout 1.0: the company says that somebody signed out, or may no longer sign in. */
import { createHash } from 'node:crypto'
import type { Accounts } from '../accounts.ts'
import { IdentityError } from '../errors.ts'
import type { IdentityStore, IdpRow, OidcStore } from '../store.ts'
import { SKEW_S } from './claims.ts'
import { IdpError } from './errors.ts'
import type { RelyingParty } from './relying.ts'

export interface LogoutOptions {
  readonly accounts: Pick<Accounts, 'endLogins'>
  readonly store: Pick<IdentityStore, 'findAccountByOutside'>
  readonly oidcStore: Pick<OidcStore, 'find' | 'insert'>
  readonly relying: Pick<RelyingParty, 'verify'>
  readonly now: () => number
}

const EVENT = 'http://schemas.openid.net/event/backchannel-logout'
/** Section 2.4 recommends two minutes. */
const MAX_AGE_S = 120

/**
 * Ends every login of the person whom the token names. Gives whether somebody was meant whom we know; that nobody was
 * is no error (section 2.7). Throws IdpError: idp.token, idp.unreachable; IdentityError log.incomplete after the cut.
 */
export async function backChannelLogout(
  options: LogoutOptions,
  idp: IdpRow,
  jwt: string,
  source: string,
): Promise<boolean> {
  const { subject, sid, id } = await readToken(options, idp, jwt)
  const sub = await whom(options, idp, subject, sid)
  const by = { id: `idp:${idp.id}`, source }
  if (sub !== undefined) await options.accounts.endLogins(sub, by, 'backchannel')
  // Last: were it remembered first, what stops us in between would leave the logins standing and refuse the provider's
  // next try. Ending them twice does no harm.
  await remember(options, id)
  return sub !== undefined
}

interface Named {
  readonly subject: string | null
  readonly sid: string | null
  /** Under which the token is remembered. */
  readonly id: string
}

/** Sections 2.4 and 2.6. The signature comes first, then what an identity token could not pass. */
async function readToken(
  { relying, oidcStore, now }: LogoutOptions,
  idp: IdpRow,
  jwt: string,
): Promise<Named> {
  // Older providers do not name the type; what tells it from an identity token is below.
  const expected = { types: ['logout+jwt', 'jwt'], maxAgeSeconds: MAX_AGE_S }
  const claims = await relying.verify(idp, jwt, expected, now())
  const { events, nonce, jti, sub, sid } = claims
  const event = typeof events === 'object' && events !== null && EVENT in events && events[EVENT]
  if (typeof event !== 'object' || event === null) throw new IdpError('idp.token', 'events')
  if (nonce !== undefined) throw new IdpError('idp.token', 'nonce')
  if (typeof jti !== 'string' || jti === '') throw new IdpError('idp.token', 'jti')
  const subject = typeof sub === 'string' && sub !== '' ? sub : null
  const session = typeof sid === 'string' && sid !== '' ? sid : null
  if (subject === null && session === null) throw new IdpError('idp.token', 'sub')
  const id = hash(idp.issuer, idp.clientId, jti)
  const used = await oidcStore.find('IdpLogout', id)
  if (used !== undefined) throw new IdpError('idp.token', 'replayed')
  return { subject, sid: session, id }
}

/** For as long as its age lets the token pass again, and once more for a clock that is set back. */
async function remember({ oidcStore, now }: LogoutOptions, id: string): Promise<void> {
  const expiresAt = now() + 2 * (MAX_AGE_S + SKEW_S) * 1000
  await oidcStore.insert({ model: 'IdpLogout', id, payload: {}, expiresAt })
}

/**
 * The account that is meant. Where both are named and we know the session, both must say the same person (section 2.6,
 * step 10); a session we never saw is one of several, and the person is enough. Throws IdpError: idp.token (`sid`).
 */
async function whom(
  { store, oidcStore }: LogoutOptions,
  idp: IdpRow,
  subject: string | null,
  sid: string | null,
): Promise<string | undefined> {
  const row = sid === null ? undefined : await oidcStore.find('IdpSession', sessionId(idp, sid))
  const ofSession = typeof row?.['accountId'] === 'string' ? row['accountId'] : undefined
  if (subject === null) return ofSession
  const outside = { idp: idp.id, issuer: idp.issuer, subject }
  const ofSubject = (await store.findAccountByOutside(outside))?.sub
  if (ofSession !== undefined && ofSession !== ofSubject) throw new IdpError('idp.token', 'sid')
  return ofSubject
}

/** Under which id the provider's session of somebody is kept. */
export function sessionId({ issuer, clientId }: IdpRow, sid: string): string {
  return hash(issuer, clientId, sid)
}

export function hash(...parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64url')
}

/** What the provider is answered where its token is not good (section 2.8). */
export function logoutProblem(error: unknown): { status: 400 | 500 | 503; body: object } {
  if (error instanceof IdpError && error.code === 'idp.unreachable')
    return {
      status: 503,
      body: { error: 'temporarily_unavailable', error_description: 'your keys cannot be fetched' },
    }
  if (error instanceof IdpError)
    return {
      status: 400,
      body: {
        error: 'invalid_request',
        error_description: `logout_token: ${error.detail ?? 'malformed'}`,
      },
    }
  const code = error instanceof IdentityError ? error.code : 'internal'
  return { status: 500, body: { error: 'server_error', error_description: code } }
}

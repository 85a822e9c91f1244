/** Signing out of a browser: its session, and the logins that end with it. */
import type { KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { Context } from './answer.ts'
import { isToken, readForm, token } from './form.ts'
import { signedOutPage, signOutPage } from './pages.ts'
import { refuseStale, type InteractionOptions } from './question.ts'

export type Session = Awaited<ReturnType<Provider['Session']['get']>>

/** The page, and what its form asks for. */
export async function signOut(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
): Promise<void> {
  const session = await provider.Session.get(ctx as KoaContextWithOIDC)
  const account = await options.accounts.find(session.accountId ?? '')
  const purpose = signOutForm(session)
  ctx.type = 'html'
  if (ctx.method !== 'POST' || account === undefined) {
    ctx.body = signOutPage(options.base, token(options, purpose), account?.email ?? null)
    return
  }
  const form = await readForm(ctx.req)
  if (form === undefined || !isToken(options, purpose, form.get('csrf') ?? ''))
    return refuseStale(ctx, options)
  await endHere(ctx, provider, options, session)
  ctx.body = signedOutPage(options.base)
}

/** What a form that signs out is sent as: of this browser's session alone. */
export const signOutForm = ({ uid }: Pick<Session, 'uid'>): string => `sign-out:${uid}`

/** Ends the logins of the browser's session, and then the session. */
export async function endHere(
  ctx: Context,
  provider: Provider,
  options: Pick<InteractionOptions, 'endLogin'>,
  session: Session,
): Promise<void> {
  for (const login of loginsOf(session)) await options.endLogin(login)
  await session.destroy()
  ctx.cookies.set(provider.cookieName('session'), null, { path: '/', httpOnly: true })
}

/** The logins that end with the browser's session: those without offline access. */
function loginsOf({ authorizations }: Session): readonly string[] {
  return Object.values(authorizations ?? {})
    .filter(({ persistsLogout }) => persistsLogout !== true)
    .map(({ grantId }) => grantId)
    .filter((grantId) => grantId !== undefined)
}

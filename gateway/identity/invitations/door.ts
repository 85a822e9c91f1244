/** `/oidc/invitation`: the link of an invitation, and the forms behind it. */
import type { KoaContextWithOIDC, Provider } from 'oidc-provider'
import { sendError, type Context, type PageError } from '../answer.ts'
import { IdentityError } from '../errors.ts'
import { record } from '../events.ts'
import { isToken, readForm, token } from '../form.ts'
import type { Problem } from '../pages.ts'
import { readBrowserAnswer } from '../passkeys/credential.ts'
import { SCRIPTED_POLICY } from '../passkeys/page.ts'
import type { InteractionOptions } from '../question.ts'
import type { Setting } from '../setting.ts'
import { endHere, signOutForm } from '../sign-out.ts'
import type { Accepted, Way } from './invitation.ts'
import { acceptedPage, invitedPage, leaveForm, openingPage } from './page.ts'

const OPENING = {
  title: 'You are invited',
  path: 'invitation',
  button: 'Open the invitation',
} as const

type Form = ReadonlyMap<string, string>

/** Answers GET and POST. Throws IdentityError, where the secret opens nothing. */
export async function invitationDoor(
  ctx: Context,
  provider: Provider,
  setting: InteractionOptions,
): Promise<void> {
  ctx.type = 'html'
  ctx.set('Content-Security-Policy', SCRIPTED_POLICY)
  if (ctx.method !== 'POST') {
    ctx.body = openingPage(setting.base, OPENING)
    return
  }
  const form = await readForm(ctx.req)
  const act = form?.get('do')
  if (form === undefined || !isAct(act)) {
    sendError(ctx, setting, badForm)
    return
  }
  const session = await provider.Session.get(ctx as KoaContextWithOIDC)
  // The provider would have to end the other person's session first; better they do it themselves.
  if (session.accountId !== undefined) {
    const purpose = signOutForm(session)
    if (act !== 'leave' || !isToken(setting, purpose, form.get('csrf') ?? ''))
      return tellOther(ctx, setting, form, token(setting, purpose))
    await endHere(ctx, provider, setting, session)
  }
  if (act === 'show' || act === 'leave') return show(ctx, setting, form, null)
  const way = wayOf(act, form)
  if ('message' in way) return show(ctx, setting, form, way)
  const source = setting.source(ctx.req)
  const accepted = await setting.invitations
    .accept(form.get('secret') ?? '', way, source)
    .catch((error: unknown) => {
      if (error instanceof IdentityError && MENDABLE.has(error.code)) return error
      throw error
    })
  if (accepted instanceof IdentityError) return show(ctx, setting, form, problemOf(accepted))
  await signInHere(ctx, provider, setting, accepted)
  ctx.body = acceptedPage(setting.base, setting.origin.origin, accepted.account.email)
}

type Act = 'show' | 'leave' | 'password' | 'passkey'

const isAct = (act: string | undefined): act is Act =>
  act === 'show' || act === 'leave' || act === 'password' || act === 'passkey'

/** Somebody is signed in here: says so, and offers the way out that leads back to this invitation. */
function tellOther(ctx: Context, setting: Setting, form: Form, csrf: string): void {
  const secret = (form.get('secret') ?? '').slice(0, 100)
  sendError(ctx, setting, anotherHere, leaveForm(setting.base, csrf, secret))
}

/** What a person can do better on the same page; the invitation stands. */
const MENDABLE: ReadonlySet<string> = new Set([
  'password.length',
  'password.weak',
  'passkey.refused',
  'passkey.exists',
  'ceremony.unknown',
  'busy',
])

function problemOf({ message, nextStep, code, fault }: IdentityError): Problem {
  return { message, nextStep, id: fault ?? code }
}

function wayOf(act: 'password' | 'passkey', form: Form): Way | Problem {
  if (act === 'password') {
    const password = (form.get('password') ?? '').slice(0, 1024)
    if (password === (form.get('again') ?? '').slice(0, 1024)) return { password }
    return { message: 'The two passwords differ.', nextStep: 'Type them again.', id: null }
  }
  const answer = readBrowserAnswer(form.get('credential') ?? '')
  if (answer !== undefined) return { question: form.get('question') ?? '', answer }
  const nextStep = 'Try again, or choose a password.'
  return { message: 'No passkey answered.', nextStep, id: 'assertion.malformed' }
}

async function show(
  ctx: Context,
  setting: Setting,
  form: Form,
  problem: Problem | null,
): Promise<void> {
  const { base } = setting
  const secret = form.get('secret') ?? ''
  const asked = await setting.invitations.show(secret, setting.source(ctx.req))
  ctx.status = problem === null ? 200 : 400
  ctx.body = invitedPage({ base, secret, ...asked, problem })
}

/** Recorded, then a session of this browser, under a new identifier; it ends with the browser. */
async function signInHere(
  ctx: Context,
  provider: Provider,
  setting: Setting,
  { account, methods, acr }: Accepted,
): Promise<void> {
  const { issuer, log, now, lifetimes } = setting
  const { sub, party, email } = account
  const source = setting.source(ctx.req)
  const who = { subject: `${issuer}|${sub}`, party, email, client: null, methods, source }
  await record(log, { code: 'auth.login', at: now(), outcome: 'success', reason: null, ...who })
  const session = await provider.Session.get(ctx as KoaContextWithOIDC)
  const loginTs = Math.floor(now() / 1000)
  session.loginAccount({ accountId: sub, amr: [...methods], acr, loginTs, transient: true })
  session.resetIdentifier()
  await session.save(lifetimes.browserSession)
  const kept = { httpOnly: true, sameSite: 'lax', secure: true, signed: true, path: '/' } as const
  ctx.cookies.set(provider.cookieName('session'), session.jti, kept)
}

const badForm: PageError = {
  status: 400,
  title: 'This form was not understood',
  message: 'What was sent is not one of the forms of an invitation.',
  nextStep: 'Open the link of your invitation again.',
  code: 'form.stale',
}

const anotherHere: PageError = {
  status: 409,
  title: 'Somebody is signed in in this browser',
  message: 'An invitation makes a new account, and this browser is signed in to one already.',
  nextStep: 'Sign out first, then open the invitation again.',
  code: 'login.other',
}

/** What happens between the provider's question and its answer: signing in, agreeing, signing out. */
import type { Provider } from 'oidc-provider'
import { sendError, type Context } from './answer.ts'
import { findCompany } from './company.ts'
import { enter, finish, grantWhatWasAsked, loginSecondsOf, recordLogin } from './enter.ts'
import { isToken, readForm } from './form.ts'
import { leave, returned } from './idp/flow.ts'
import { html } from './pages.ts'
import {
  ask,
  formOf,
  isAnother,
  refuseStale,
  type Details,
  type InteractionOptions,
} from './question.ts'
import { askAlone, showAlone, showPasskey, signIn } from './sign-in.ts'
import { signOut } from './sign-out.ts'
import { giveCode } from './totp/sign-in.ts'

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
      if (form === undefined || !isToken(options, formOf(uid), csrf))
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
        const way = html`<p><a class="button" href="${options.base}/sign-out">Sign out</a></p>`
        sendError(ctx, options, anotherHere, way)
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
  nextStep: 'Sign out first, then start again in your program.',
  code: 'login.other',
} as const

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
  code: { prompt: 'login', run: giveCode },
  key: { prompt: 'login', run: askAlone },
  alone: { prompt: 'login', run: showAlone },
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
    const source = options.source(ctx.req)
    await recordLogin(options, details, account, { source, methods: session.amr ?? [] })
  }
  const seconds = await loginSecondsOf(options, account)
  const grantId = await grantWhatWasAsked(provider, options, details, account.sub, seconds)
  return finish(ctx, provider, { consent: { grantId } }, true)
}

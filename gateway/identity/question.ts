/** The provider's question to a person, as a page; and what every answer to it needs. */
import type { Provider } from 'oidc-provider'
import { sendError, type Context } from './answer.ts'
import { token, type FormKey } from './form.ts'
import { consentPage, loginPage, type Problem } from './pages.ts'
import type { Setting } from './setting.ts'

export interface InteractionOptions extends Setting, FormKey {}

export type Details = Awaited<ReturnType<Provider['interactionDetails']>>

const staleForm = {
  status: 403,
  title: 'This form is out of date',
  message: 'The form was not the one this sign-in is waiting for.',
  nextStep: 'Go back to the program you came from and start again.',
  code: 'form.stale',
} as const

export function refuseStale(ctx: Context, options: InteractionOptions): void {
  sendError(ctx, options, staleForm)
}

/** What a form of a sign-in is sent as: of no other sign-in. */
export const formOf = (uid: string): string => `interaction:${uid}`

/** What every page of a sign-in has: where its form goes, its proof that it is of this sign-in, and which program waits. */
export async function frameOf(provider: Provider, options: InteractionOptions, details: Details) {
  const { base } = options
  return {
    base,
    action: `${base}/interaction/${details.uid}`,
    csrf: token(options, formOf(details.uid)),
    client: await clientName(provider, details),
  }
}

/** Renders the question that the provider has. */
export async function ask(
  ctx: Context,
  provider: Provider,
  options: InteractionOptions,
  details: Details,
  problem: Problem | null,
  status: number,
  typed = '',
): Promise<void> {
  const frame = await frameOf(provider, options, details)
  ctx.status = status
  ctx.type = 'html'
  if (details.prompt.name === 'login') {
    const email = typed === '' ? suggested(details) : typed
    const listed = await options.idps.listed()
    const companies = listed.map(({ id, name }) => ({ name, href: `${frame.action}/via/${id}` }))
    ctx.body = loginPage({ ...frame, email, problem, companies })
    return
  }
  const account = await options.accounts.find(details.session?.accountId ?? '')
  ctx.body = consentPage({ ...frame, email: account?.email ?? '' })
}

function suggested(details: Details): string {
  const hint = details.params['login_hint']
  return typeof hint === 'string' ? hint.slice(0, 320) : ''
}

async function clientName(provider: Provider, details: Details): Promise<string> {
  const client = await provider.Client.find(String(details.params['client_id']))
  return client?.clientName ?? client?.clientId ?? 'this program'
}

/** The provider would have to end the other person's session first; better they do it themselves. */
export function isAnother({ session }: Details, sub: string): boolean {
  return session !== undefined && session.accountId !== sub
}

export const otherAccount: Problem = {
  message: 'Another person is signed in in this browser.',
  nextStep: 'Sign out first, then start again.',
  id: null,
}

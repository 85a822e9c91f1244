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

export async function clientName(provider: Provider, details: Details): Promise<string> {
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

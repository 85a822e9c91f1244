/** From an address to the company that signs it in. */
import type { Provider } from 'oidc-provider'
import type { Context } from './answer.ts'
import { companyPage, type Problem } from './pages.ts'
import { ask, type Details, type InteractionOptions } from './question.ts'

const COMPANY_WINDOW_MS = 10 * 60_000
/** Addresses of no company that one source may try in that time; one of a company costs nothing. */
const COMPANIES_ASKED = 30

/** Who tries addresses to learn who the vendors are is slowed down. */
export async function findCompany(
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

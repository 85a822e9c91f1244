/** An answer that is an error: a page for people, JSON for programs, the same id in both and in the log. */
import type { Provider } from 'oidc-provider'
import { errorPage, type Markup } from './pages.ts'
import type { Setting } from './setting.ts'

/** A request as Koa sees it, before it is one of the provider's routes. */
export type Context = Parameters<Parameters<Provider['use']>[0]>[0]

export interface PageError {
  readonly status: number
  readonly title: string
  readonly message: string
  readonly nextStep: string
  readonly code: string
}

/** An error as a page for people, with a way on where `way` is one, as JSON for programs; gives the id it carries. */
export function sendError(
  ctx: Context,
  { base, newId }: Pick<Setting, 'base' | 'newId'>,
  error: PageError,
  way?: Markup,
): string {
  const id = newId()
  ctx.status = error.status
  if (ctx.accepts('json', 'html') === 'html') {
    ctx.type = 'html'
    ctx.body = errorPage({ base, id, ...error, way })
  } else {
    const { code, message, nextStep } = error
    ctx.body = { error: code, error_description: message, next_step: nextStep, id }
  }
  return id
}

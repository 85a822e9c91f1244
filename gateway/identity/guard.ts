/** Around every request to the provider: its headers, one host name, no form from elsewhere, our own pages first. */
import { errors, type Provider } from 'oidc-provider'
import { sendError, type Context, type PageError } from './answer.ts'
import { prefillCode, throttleCodes } from './codes.ts'
import { IdentityError } from './errors.ts'
import { IdpError } from './idp/errors.ts'
import { comeBack, hearLogout, refuse } from './idp/flow.ts'
import { createPages } from './interaction.ts'
import { invitationDoor } from './invitations/door.ts'
import { CONTENT_SECURITY_POLICY, STYLE } from './pages.ts'
import { passkeyPage, SCRIPT, SCRIPTED_POLICY } from './passkeys/page.ts'
import type { Setting } from './setting.ts'
import { totpDoor } from './totp/door.ts'

/** The provider's own errors, as a page. */
export function renderError(
  setting: Setting,
  ctx: Context,
  out: { error: string; error_description?: string | undefined },
  error: Error,
): void {
  const id = sendError(ctx, setting, {
    status: ctx.status,
    title: 'Signing in did not work',
    message: `${out.error_description ?? 'The request was not understood'}.`,
    nextStep: 'Go back to the program you came from and start again.',
    code: out.error,
  })
  if (ctx.status >= 500) setting.report(error, id)
}

type Middleware = (ctx: Context, next: () => Promise<unknown>) => Promise<void>

const HEADERS = {
  'Content-Security-Policy': CONTENT_SECURITY_POLICY,
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  // Not `no-referrer`: it turns the Origin of our own forms into "null".
  'Referrer-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), microphone=(), geolocation=()',
  'Cache-Control': 'no-store',
} as const

/** What holds for every answer: its headers, one host name, no form from elsewhere, no stack trace. */
export function guard(setting: Setting): Middleware {
  return async (ctx, next) => {
    ctx.set(HEADERS)
    const refusal = refuseRequest(setting, ctx)
    if (refusal !== undefined) {
      sendError(ctx, setting, refusal)
      return
    }
    try {
      await next()
    } catch (error) {
      const shown = pageErrorOf(error)
      const id = sendError(ctx, setting, shown)
      if (shown.status >= 500) setting.report(error, id)
    }
    if (ctx.status === 404 && ctx.body === undefined) sendError(ctx, setting, notFound)
  }
}

const notFound: PageError = {
  status: 404,
  title: 'There is no such page',
  message: 'The address is not one of this gateway.',
  nextStep: 'Check the address, or go back to the program you came from.',
  code: 'path.unknown',
}

/** Paths that browsers post forms to; the others are for programs and carry no cookie. */
const FORM_PATHS =
  /^\/(?:device|sign-out|invitation|totp|interaction\/[^/]+|session\/end\/confirm)\/?$/i

function refuseRequest(setting: Setting, ctx: Context): PageError | undefined {
  const { origin } = setting
  if (ctx.req.headers.host?.toLowerCase() !== origin.host)
    return {
      status: 421,
      title: 'This is not the address of the gateway',
      message: `Signing in works only at ${origin.origin}.`,
      nextStep: `Open ${setting.issuer}/device instead.`,
      code: 'host.misdirected',
    }
  if (ctx.method !== 'POST' || !FORM_PATHS.test(ctx.path)) return undefined
  const { origin: from, 'sec-fetch-site': site } = ctx.req.headers
  const own = from === undefined || from === origin.origin
  if (own && (site === undefined || site === 'same-origin')) return undefined
  return {
    status: 403,
    title: 'The form came from elsewhere',
    message: 'Another site tried to send this form in your name.',
    nextStep: 'Close that site, and start again from the program you want to use.',
    code: 'form.cross_site',
  }
}

function pageErrorOf(error: unknown): PageError {
  if (error instanceof errors.OIDCProviderError && error.statusCode < 500)
    return {
      status: error.statusCode,
      title: 'This sign-in has ended',
      message: `It was finished, or took longer than a quarter of an hour (${error.message}).`,
      nextStep: 'Go back to the program you came from and start again.',
      code: error.error,
    }
  const title = 'This did not work'
  if (error instanceof IdentityError)
    return {
      status: error.status,
      title,
      message: error.message,
      nextStep: error.nextStep,
      code: error.code,
    }
  return {
    status: 500,
    title,
    message: 'The gateway failed while answering.',
    nextStep: 'Try again; if it stays, give the id below to an administrator.',
    code: 'internal',
  }
}

/** Our own pages, before the provider's. */
export function route(setting: Setting, provider: Provider): Middleware {
  const options = { ...setting, formKey: setting.keys.cookies[0] ?? '' }
  const pages = createPages(provider, options)
  return async (ctx, next) => {
    const path = ctx.path.toLowerCase().replace(/(?<=.)\/$/, '')
    if (path === '/style.css') {
      ctx.type = 'css'
      ctx.set('Cache-Control', 'public, max-age=3600')
      ctx.body = STYLE
      return
    }
    if (path === '/passkey.js') {
      ctx.type = 'js'
      ctx.set('Cache-Control', 'no-cache')
      ctx.body = SCRIPT
      return
    }
    if (path === '/passkey' && ctx.method === 'GET') {
      ctx.type = 'html'
      ctx.set('Content-Security-Policy', SCRIPTED_POLICY)
      ctx.body = passkeyPage(setting.base, new URL('/api/v1', setting.origin).pathname)
      return
    }
    const [, uid, step, idp] = INTERACTION.exec(ctx.path) ?? []
    if (uid !== undefined && step === undefined) return pages.interact(ctx, uid)
    const [, own, act] = IDP.exec(ctx.path) ?? []
    if (uid !== undefined || own !== undefined) {
      const found = await withIdpErrors(setting, ctx, async () => {
        if (own !== undefined && act === 'logout') {
          if (ctx.method !== 'POST') return false
          await hearLogout(setting, ctx, own)
          return true
        }
        if (ctx.method !== 'GET') return false
        if (own !== undefined) await comeBack(setting, ctx, own)
        else if (idp === undefined) await pages.arrive(ctx, uid ?? '')
        else await pages.leave(ctx, uid ?? '', idp)
        return true
      })
      if (found) return
    }
    if (path === '/sign-out') return pages.signOut(ctx)
    if (path === '/totp') return totpDoor(ctx, setting)
    if (path === '/invitation') return invitationDoor(ctx, provider, options)
    if (path === '/device' && ctx.method === 'POST') return throttleCodes(setting, ctx, next)
    if (path === '/device') prefillCode(ctx)
    await next()
    if (path === '/device/auth') addInterval(setting, ctx)
  }
}

/** `/interaction/<uid>`, and from it to a company's provider and back. */
const INTERACTION = /^\/interaction\/([A-Za-z0-9_-]{1,64})(?:\/(returned|via\/([a-z0-9-]{1,40})))?$/
/** What a company's provider calls. */
const IDP = /^\/idp\/([a-z0-9-]{1,40})\/(callback|logout)$/

/** A sign-in that the company's provider did not bring to its end is a page of its own. */
async function withIdpErrors<T>(
  setting: Setting,
  ctx: Context,
  work: () => Promise<T>,
): Promise<T | true> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof IdpError)) throw error
    refuse(setting, ctx, error)
    return true
  }
}

/** RFC 8628 3.2: without it, clients wait five seconds between two questions. */
function addInterval({ lifetimes }: Setting, ctx: Context): void {
  const { body }: { body?: unknown } = ctx
  if (ctx.status === 200 && typeof body === 'object' && body !== null)
    ctx.body = { ...body, interval: lifetimes.poll }
}

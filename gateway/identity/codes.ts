/** The device code, as a person meets it (RFC 8628 3.3): typed, compared, used up. */
import type { Configuration, KoaContextWithOIDC } from 'oidc-provider'
import { sendError, type Context } from './answer.ts'
import { codePage, confirmPage, successPage, type Problem } from './pages.ts'
import type { Setting } from './setting.ts'

type DeviceFlow = NonNullable<NonNullable<Configuration['features']>['deviceFlow']>

/** The pages of the device flow, and what they tell about who asked. */
export function deviceFlow(setting: Setting): DeviceFlow {
  const { base } = setting
  return {
    enabled: true,
    deviceInfo: (ctx) => ({
      ip: setting.source(ctx.req),
      ua: ctx.get('user-agent').slice(0, 120),
    }),
    userCodeInputSource: (ctx, _, out, error) =>
      askForCode(setting, ctx, out?.error_description, error),
    userCodeConfirmSource(ctx, _, client, info, code) {
      ctx.type = 'html'
      ctx.body = confirmPage({
        base,
        xsrf: secretOf(ctx),
        code,
        client: client.clientName ?? client.clientId,
        address: typeof info['ip'] === 'string' ? info['ip'] : 'unknown',
        agent: typeof info['ua'] === 'string' && info['ua'] !== '' ? info['ua'] : 'unknown',
      })
    },
    successSource(ctx) {
      ctx.type = 'html'
      ctx.body = successPage(base, ctx.oidc.client?.clientName ?? 'The program')
    },
  }
}

function secretOf(ctx: KoaContextWithOIDC): string {
  const secret = ctx.oidc.session?.state?.['secret']
  return typeof secret === 'string' ? secret : ''
}

const CODE_PROBLEMS: Readonly<Record<string, Omit<Problem, 'id'>>> = {
  NoCodeError: { message: 'No code was given.', nextStep: 'Type the code that you were shown.' },
  NotFoundError: {
    message: 'There is no such code.',
    nextStep: 'Compare it with what you were shown; a code is good for ten minutes.',
  },
  ExpiredError: {
    message: 'This code has expired.',
    nextStep: 'Start again in the program that showed it.',
  },
  AlreadyUsedError: {
    message: 'This code was used already.',
    nextStep: 'Start again in the program that showed it.',
  },
  AbortedError: {
    message: 'The request was refused, and the program was told so.',
    nextStep: 'You can close this page.',
  },
}

function askForCode(
  { base, newId, report }: Setting,
  ctx: KoaContextWithOIDC,
  description: string | undefined,
  error: Error | undefined,
): void {
  const prefill: unknown = ctx.state['prefill']
  const known = error === undefined ? undefined : CODE_PROBLEMS[error.name]
  let problem: Problem | null = known === undefined ? null : { ...known, id: null }
  if (error !== undefined && known === undefined) {
    const id = newId()
    if (ctx.status >= 500) report(error, id)
    problem = {
      message: `This did not work: ${description ?? 'the request was not understood'}.`,
      nextStep: 'Type the code again, or start again in the program that showed it.',
      id,
    }
  }
  if (known !== undefined) ctx.status = error?.name === 'AbortedError' ? 200 : 400
  ctx.state['wrongCode'] = error?.name === 'NotFoundError'
  ctx.type = 'html'
  const code = typeof prefill === 'string' ? prefill : ''
  ctx.body = codePage({ base, xsrf: secretOf(ctx), code, problem })
}

/** The link with the code in it: shown for the person to confirm, never submitted by a script. */
export function prefillCode(ctx: Context): void {
  const { user_code: code, ...rest } = ctx.query
  if (code === undefined) return
  ctx.query = rest
  if (typeof code === 'string' && /^[A-Za-z0-9 -]{1,20}$/.test(code)) ctx.state['prefill'] = code
}

const CODE_WINDOW_MS = 10 * 60_000
const WRONG_CODES = 20

/** RFC 8628 5.1: guessing a code is counted per source; a right one costs nothing. */
export async function throttleCodes(
  setting: Setting,
  ctx: Context,
  next: () => Promise<unknown>,
): Promise<void> {
  const key = `code:${setting.source(ctx.req)}`
  const throttle = { key, limit: WRONG_CODES, windowMs: CODE_WINDOW_MS }
  const { allowed, retryAfterMs } = await setting.store.take([throttle], setting.now())
  if (!allowed) {
    ctx.set('Retry-After', String(Math.ceil(retryAfterMs / 1000)))
    sendError(ctx, setting, {
      status: 429,
      title: 'Too many wrong codes',
      message: 'From your network there were too many wrong codes.',
      nextStep: `Try again in ${Math.max(1, Math.ceil(retryAfterMs / 60_000))} minutes.`,
      code: 'code.locked',
    })
    return
  }
  await next()
  if (ctx.state['wrongCode'] !== true) await setting.store.settle([], [key])
}

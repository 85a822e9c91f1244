/** `/oidc/totp`: the link of an enrolment, what an app reads behind it, and its first code. */
import { sendError, type Context, type PageError } from '../answer.ts'
import { IdentityError } from '../errors.ts'
import { readForm } from '../form.ts'
import { openingPage } from '../invitations/page.ts'
import { SCRIPTED_POLICY } from '../passkeys/page.ts'
import type { Setting } from '../setting.ts'
import { enrolledPage, enrolPage } from './page.ts'

/** Answers GET and POST. Throws IdentityError, where the secret opens nothing. */
export async function totpDoor(ctx: Context, setting: Setting): Promise<void> {
  const { base, totps } = setting
  ctx.type = 'html'
  if (ctx.method !== 'POST') {
    ctx.set('Content-Security-Policy', SCRIPTED_POLICY)
    ctx.body = openingPage(base, OPENING)
    return
  }
  const form = await readForm(ctx.req)
  const link = form?.get('secret') ?? ''
  const act = form?.get('do')
  if (act === 'show') {
    ctx.body = enrolPage(base, link, await totps.show(link), null)
    return
  }
  if (act !== 'code') {
    sendError(ctx, setting, badForm)
    return
  }
  const code = form?.get('code') ?? ''
  const done = await totps.confirm(link, code, setting.source(ctx.req)).catch((error: unknown) => {
    if (error instanceof IdentityError && error.code === 'totp.code') return error
    throw error
  })
  if (done instanceof IdentityError) {
    const problem = { message: done.message, nextStep: done.nextStep, id: done.code }
    ctx.status = 400
    ctx.body = enrolPage(base, link, await totps.show(link), problem)
    return
  }
  ctx.body = enrolledPage(base, done)
}

const OPENING = {
  title: 'Add an authenticator app',
  path: 'totp',
  button: 'Go on',
} as const

const badForm: PageError = {
  status: 400,
  title: 'This form was not understood',
  message: 'What was sent is not one of the forms of an authenticator app.',
  nextStep: 'Open the link again, or make a new one: sallyport totp add NAME.',
  code: 'form.stale',
}

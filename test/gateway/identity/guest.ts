/** A guest with a link: what the tests of invitations, and of passkeys without a password, begin with. */
import type { NewInvitation } from '../../../gateway/identity/invitations/invitation.ts'
import { softKey, type SoftKey } from '../../support/authenticator.ts'
import { decode, openBrowser, type Browser, type Page } from '../../support/browser.ts'
import { SYSTEM, type House } from './house.ts'

/** Invites somebody of Acme; gives the secret of the link and what the account will be called. */
export async function inviteGuest(house: House, more: Partial<NewInvitation> = {}) {
  const asked = { name: 'Gil Guest', vendor: 'acme', groups: ['press-service'], ...more }
  const { invitation, secret } = await house.identity.invitations.invite(asked, SYSTEM)
  return { ...invitation, secret }
}

/** Opens the link as a person without a script does: by typing what stands behind the hash. */
export async function openLink(
  { origin }: Pick<House, 'origin'>,
  browser: Browser,
  secret: string,
): Promise<Page> {
  const page = await browser.open(`${origin}/oidc/invitation`)
  return browser.submit(page, 'Open the invitation', { secret })
}

/** The challenge of the question on a page. */
export function challengeOf({ text }: Page): string {
  const [, options = '{}'] = /data-options="([^"]*)"/.exec(text) ?? []
  return (JSON.parse(decode(options)) as { challenge: string }).challenge
}

/** A guest who chose a passkey; its account has no password. */
export async function guestWithPasskey(
  house: House,
  email: string,
): Promise<{ readonly key: SoftKey; readonly sub: string; readonly email: string }> {
  await using browser = openBrowser(house.anchor)
  const { secret, sub } = await inviteGuest(house, { email })
  const page = await openLink(house, browser, secret)
  const key = softKey(house.origin)
  const credential = JSON.stringify(key.register(challengeOf(page)))
  const last = await browser.submit(page, 'Use a passkey', { credential })
  if (last.status !== 200) throw new Error(last.text)
  return { key, sub, email }
}

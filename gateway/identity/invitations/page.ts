/** The pages of an invitation: what somebody is invited as, how they will sign in, and that they are in. */
import { html, page, problemBox, type Markup, type Problem } from '../pages.ts'
import { SCRIPT_PROBLEM } from '../passkeys/page.ts'
import type { Invitation } from './invitation.ts'

/** What a link opens: its title, where it goes, and the button. */
interface Opening {
  readonly title: string
  readonly path: 'invitation' | 'totp'
  readonly button: string
}

/** Opened by a link; its script sends what stands behind the hash. Without a script, a person can. */
export function openingPage(base: string, { title, path, button }: Opening): string {
  return page(
    base,
    title,
    html`<form method="post" action="${base}/${path}" id="invitation">
      <label for="secret">What stands behind the # of your link</label>
      <input
        id="secret"
        name="secret"
        type="password"
        autocomplete="off"
        maxlength="100"
        required
        autofocus
      />
      <button type="submit" name="do" value="show">${button}</button>
    </form>`,
    `${base}/passkey.js`,
  )
}

export interface InvitedPage {
  readonly base: string
  readonly secret: string
  readonly invitation: Invitation
  /** For `navigator.credentials.create`, and what finds it again; null: this gateway has no passkeys. */
  readonly question: { readonly secret: string; readonly options: object } | null
  readonly problem: Problem | null
}

const when = (at: number): string =>
  `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`

export function invitedPage({ base, secret, invitation, question, problem }: InvitedPage): string {
  const { name, email, vendor, groups, renews, expiresAt } = invitation
  const action = `${base}/invitation`
  return page(
    base,
    renews ? `A new way in for ${name}` : `Welcome, ${name}`,
    html`${problemBox(problem, 'refused')}
      <p>
        ${
          renews
            ? 'What you choose below takes the place of your password and your passkeys. Every sign-in of yours ends.'
            : 'You are invited here as a guest. From now on you sign in with what you choose below.'
        }
      </p>
      <dl>
        <dt>You sign in as</dt>
        <dd>${email}</dd>
        <dt>Company</dt>
        <dd>${vendor ?? 'none: staff'}</dd>
        <dt>Groups</dt>
        <dd>${groups.length === 0 ? 'none' : groups.join(', ')}</dd>
        <dt>Good until</dt>
        <dd>${when(expiresAt)}, once</dd>
      </dl>
      ${question === null ? html`` : passkeyForm(action, secret, question)}
      <h2>${question === null ? 'With a password' : 'Or with a password'}</h2>
      ${passwordForm(action, secret, email)}`,
    `${base}/passkey.js`,
  )
}

type Question = NonNullable<InvitedPage['question']>

function passkeyForm(action: string, secret: string, question: Question): Markup {
  return html`<h2>With a passkey: finger, face or PIN of your device</h2>
    ${SCRIPT_PROBLEM}
    <form
      method="post"
      action="${action}"
      id="second"
      data-kind="register"
      data-options="${JSON.stringify(question.options)}"
    >
      <input type="hidden" name="secret" value="${secret}" />
      <input type="hidden" name="question" value="${question.secret}" />
      <input type="hidden" name="credential" id="credential" value="" />
      <button type="submit" name="do" value="passkey" id="go" disabled>Use a passkey</button>
    </form>`
}

function passwordForm(action: string, secret: string, email: string): Markup {
  return html`<form method="post" action="${action}">
    <input type="hidden" name="secret" value="${secret}" />
    <input type="hidden" name="email" value="${email}" autocomplete="username" />
    <label for="password">Password, 12 characters or more</label>
    <input
      id="password"
      name="password"
      type="password"
      autocomplete="new-password"
      minlength="12"
      maxlength="256"
      required
    />
    <label for="again">The same again</label>
    <input
      id="again"
      name="again"
      type="password"
      autocomplete="new-password"
      maxlength="256"
      required
    />
    <button type="submit" name="do" value="password" class="quiet">Set this password</button>
  </form>`
}

/** Signs out whoever is signed in here, and comes back to the invitation: the form goes nowhere else. */
export function leaveForm(base: string, csrf: string, secret: string): Markup {
  return html`<form method="post" action="${base}/invitation">
    <input type="hidden" name="csrf" value="${csrf}" />
    <input type="hidden" name="secret" value="${secret}" />
    <button type="submit" name="do" value="leave">Sign out and open the invitation</button>
  </form>`
}

/** In: what comes next. `origin`: the address of the gateway. */
export function acceptedPage(base: string, origin: string, email: string): string {
  return page(
    base,
    'You are in',
    html`<p>
        You are signed in in this browser as <strong>${email}</strong>. The invitation is used up.
      </p>
      <p>
        <strong>Next step:</strong> run the <code>sallyport login</code> line that came with your
        invitation. Open the address that it prints in this browser, and compare the code.
      </p>
      <pre tabindex="0">sallyport login --gateway ${origin} --ca-sha256 …</pre>`,
  )
}

/** The pages of authenticator apps: what an app reads, and the field for its code. No script, but to open the link. */
import encodeQR from 'qr'
import { html, page, problemBox, type Markup, type Problem } from '../pages.ts'
import type { Enrolment } from './totp.ts'

export interface CodeForm {
  readonly action: string
  /** Null: the secret is enough. */
  readonly csrf: string | null
  /** Finds the question. */
  readonly secret: string
  /** Another way is the first one. */
  readonly quiet: boolean
}

/** The field for a code. */
export function codeForm({ action, csrf, secret, quiet }: CodeForm): Markup {
  const focus = quiet ? html`` : html`autofocus`
  const form = csrf === null ? html`` : html`<input type="hidden" name="csrf" value="${csrf}" />`
  return html`<form method="post" action="${action}" id="by-code">
    ${form}
    <input type="hidden" name="secret" value="${secret}" />
    <label for="code">The six digits that your authenticator app shows now</label>
    <input
      id="code"
      name="code"
      class="code"
      inputmode="numeric"
      autocomplete="one-time-code"
      maxlength="20"
      required
      ${focus}
    />
    <button type="submit" name="do" value="code" class="${quiet ? 'quiet' : ''}">
      Use this code
    </button>
  </form>`
}

export interface CodePage {
  readonly base: string
  readonly action: string
  readonly csrf: string
  readonly client: string
  readonly email: string
  readonly secret: string
  readonly problem: Problem | null
}

/** After the password, where the account has an authenticator app and no passkey. */
export function codePage(shown: CodePage): string {
  const { base, action, csrf, client, email, secret, problem } = shown
  return page(
    base,
    'Confirm with a code',
    html`${problemBox(problem)}
      <p>to continue to ${client} as <strong>${email}</strong></p>
      ${codeForm({ action, csrf, secret, quiet: false })}
      <form method="post" action="${action}">
        <input type="hidden" name="csrf" value="${csrf}" />
        <button type="submit" name="do" value="abort" class="quiet">Cancel</button>
      </form>
      <p class="id">Lost it? An administrator can take the app off your account.</p>`,
  )
}

/** The link of an enrolment, opened: what the app reads, and its first code. */
export function enrolPage(
  base: string,
  link: string,
  { email, name, uri, secret }: Enrolment,
  problem: Problem | null,
): string {
  return page(
    base,
    'Add an authenticator app',
    html`${problemBox(problem)}
      <dl>
        <dt>Account</dt>
        <dd>${email}</dd>
        <dt>Name</dt>
        <dd>${name}</dd>
        <dt>Continue only if</dt>
        <dd>you asked for this yourself, a moment ago</dd>
      </dl>
      <h2>Read this with the app</h2>
      ${qrCode(uri)}
      <p><a href="${uri}">Open it in an app on this device</a>, or type it there:</p>
      <pre tabindex="0" id="typed">${secret.replaceAll(/.{4}(?=.)/g, '$& ')}</pre>
      <h2>Then confirm</h2>
      ${codeForm({ action: `${base}/totp`, csrf: null, secret: link, quiet: false })}`,
  )
}

/** The app is the account's. */
export function enrolledPage(base: string, { email, name }: Enrolment): string {
  return page(
    base,
    'The app is yours now',
    html`<p role="status">
        Signing in as <strong>${email}</strong> asks for a code of “${name}” from now on. You can
        close this page.
      </p>
      <p>Approvals are signed by a passkey: <code>sallyport passkey add NAME</code> adds one.</p>`,
  )
}

/** Black on white whatever the colours of the page: what reads it expects that. */
function qrCode(text: string): Markup {
  const rows = encodeQR(text, 'raw', { ecc: 'medium', border: 4 })
  const dark = rows.flatMap((row, y) => row.flatMap((on, x) => (on ? [`M${x} ${y}h1v1h-1z`] : [])))
  return html`<svg
    class="qr"
    viewBox="0 0 ${rows.length} ${rows.length}"
    role="img"
    aria-label="QR code"
  >
    <path d="${dark.join('')}" />
  </svg>`
}

/** The two pages that ask a browser for a passkey, and the one script they run: nothing inline, nothing from elsewhere. */
import { readFileSync } from 'node:fs'
import { html, page } from '../pages.ts'
import { codeForm } from '../totp/page.ts'

/** Served as `/oidc/passkey.js`. */
export const SCRIPT = readFileSync(new URL('./browser.js', import.meta.url), 'utf8')

/** One script, and calls to this gateway: no more than these pages need. */
export const SCRIPTED_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"

const NO_SCRIPT = html`<noscript
  ><div class="problem" role="alert">
    <p>Passkeys need a script of this gateway, and this browser runs none.</p>
  </div></noscript
>`

/** Where the script says what went wrong. */
export const SCRIPT_PROBLEM = html`${NO_SCRIPT}
  <div class="problem" role="alert" id="problem" hidden>
    <p id="message"></p>
    <p class="id" id="code"></p>
  </div>`

/** The page of a link with a secret behind its hash: what is asked stands in the API, at `api`. */
export function passkeyPage(base: string, api: string): string {
  return page(
    base,
    'Passkey',
    html`${SCRIPT_PROBLEM}
      <div id="ceremony" data-api="${api}" hidden>
        <p>You answer as <strong id="email"></strong>.</p>
        <dl id="facts"></dl>
        <button type="button" id="go">Continue</button>
      </div>
      <p id="done" role="status" hidden></p>
      <pre id="signature" tabindex="0" hidden></pre>`,
    `${base}/passkey.js`,
  )
}

export interface SecondFactorPage {
  readonly base: string
  readonly action: string
  readonly csrf: string
  readonly client: string
  /** Whose password was given; null: the passkey is to say who it is. */
  readonly email: string | null
  readonly secret: string
  /** For `navigator.credentials.get`, as JSON. */
  readonly options: object
  /** Finds the question for a code, where the account has an authenticator app too; else null. */
  readonly code: string | null
}

/** After the password, where the account has a passkey; and where it has nothing else, in its place. */
export function secondFactorPage(shown: SecondFactorPage): string {
  const { base, action, csrf, client, email, secret, options, code } = shown
  const as = email === null ? html`` : html` as <strong>${email}</strong>`
  return page(
    base,
    email === null ? 'Sign in with your passkey' : 'Confirm with your passkey',
    html`${SCRIPT_PROBLEM}
      <p>to continue to ${client}${as}</p>
      <form
        method="post"
        action="${action}"
        id="second"
        data-kind="get"
        data-options="${JSON.stringify(options)}"
      >
        <input type="hidden" name="csrf" value="${csrf}" />
        <input type="hidden" name="secret" value="${secret}" />
        <input type="hidden" name="credential" id="credential" value="" />
        <button
          type="submit"
          name="do"
          value="${email === null ? 'alone' : 'passkey'}"
          id="go"
          autofocus
          disabled
        >
          Use my passkey
        </button>
        <button type="submit" name="do" value="abort" class="quiet" formnovalidate>Cancel</button>
      </form>
      ${
        code === null
          ? html``
          : html`<h2>Or with a code</h2>
              ${codeForm({ action, csrf, secret: code, quiet: true })}`
      }
      <p class="id">
        Lost it? An administrator can send you a link by which you choose a new one.
      </p>`,
    `${base}/passkey.js`,
  )
}

/**
 * The pages a person meets while signing in: plain HTML from the server, no script, nothing from elsewhere.
 * Every value is escaped where it enters; only `html` makes markup.
 */

/** Markup that may stand in a page as it is. Made by `html` alone. */
export class Markup {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}
type Part = string | number | Markup | readonly Markup[]

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

/** Text as it may stand in an element or a quoted attribute. */
export function escape(text: string): string {
  return text.toWellFormed().replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
}

/** Markup from a template: whatever is put in is escaped, but for what `html` made. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  const rendered = parts.map((part) => {
    if (part instanceof Markup) return part.text
    if (typeof part === 'object') return part.map((one) => one.text).join('')
    return escape(String(part))
  })
  return new Markup(String.raw({ raw: strings }, ...rendered))
}

const none = new Markup('')

export const CONTENT_SECURITY_POLICY =
  "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

export const STYLE = `:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }
main { max-width: 28rem; margin: 8vh auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
.product { margin: 0 0 2rem; font-weight: 600; letter-spacing: .02em; }
label { display: block; margin: 1rem 0 .25rem; font-weight: 600; }
input { width: 100%; font: inherit; padding: .6rem .75rem; border: 1px solid GrayText; border-radius: .375rem;
  background: Field; color: FieldText; }
input.code, strong.code { font-family: ui-monospace, monospace; font-size: 1.5rem; letter-spacing: .12em; }
input.code { text-transform: uppercase; }
button { font: inherit; font-weight: 600; margin: 1.5rem .75rem 0 0; padding: .6rem 1.25rem; border-radius: .375rem;
  border: 1px solid #1d4ed8; background: #1d4ed8; color: #fff; cursor: pointer; }
a.button { display: inline-block; font-weight: 600; padding: .6rem 1.25rem; border-radius: .375rem; text-decoration: none;
  border: 1px solid #1d4ed8; background: #1d4ed8; color: #fff; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
button.quiet { background: transparent; color: inherit; border-color: GrayText; }
:focus-visible { outline: 3px solid #f59e0b; outline-offset: 2px; }
.problem { border-left: .3rem solid #dc2626; padding: .25rem 0 .25rem .9rem; margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
.id { font-size: .875rem; }
.qr { display: block; width: 14rem; background: #fff; }
.qr path { fill: #000; }
[hidden] { display: none; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid GrayText; padding: .75rem; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
`

/** A whole page around `body`; `script` is the address of the one script it runs. */
export function page(base: string, title: string, body: Markup, script?: string): string {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <title>${title} - Sallyport</title>
        <link rel="stylesheet" href="${base}/style.css" />
        ${script === undefined ? none : html`<script src="${script}" defer></script>`}
      </head>
      <body>
        <main>
          <p class="product">Sallyport</p>
          <h1>${title}</h1>
          ${body}
        </main>
      </body>
    </html> `.text
}

/** What went wrong on the last try: why, and what to do. */
export interface Problem {
  readonly message: string
  readonly nextStep: string
  /** Finds the attempt in the log; null where there is nothing to find. */
  readonly id: string | null
}

/** `id`: of the element, where the page has a box of its script's too. */
export function problemBox(problem: Problem | null, id = 'problem'): Markup {
  if (problem === null) return none
  return html`<div class="problem" role="alert" id="${id}">
    <p>${problem.message} ${problem.nextStep}</p>
    ${problem.id === null ? none : html`<p class="id">Id: <code>${problem.id}</code></p>`}
  </div>`
}

export interface LoginPage {
  readonly base: string
  readonly action: string
  readonly csrf: string
  readonly client: string
  /** What was typed before, or what the client suggested. */
  readonly email: string
  readonly problem: Problem | null
  /** Companies that everybody may see here. */
  readonly companies: readonly CompanyLink[]
}

export interface CompanyLink {
  readonly name: string
  readonly href: string
}

export function loginPage(shown: LoginPage): string {
  const { base, action, csrf, client, email, problem, companies } = shown
  return page(
    base,
    'Sign in',
    html`${problemBox(problem)}
      <p>to continue to ${client}</p>
      <form method="post" action="${action}">
        <input type="hidden" name="csrf" value="${csrf}" />
        <label for="email">E-mail address</label>
        <input
          id="email"
          name="email"
          type="email"
          value="${email}"
          autocomplete="username"
          maxlength="320"
          required
          autofocus
        />
        <label for="password">Password</label>
        <input
          id="password"
          name="password"
          type="password"
          autocomplete="current-password"
          maxlength="256"
          required
        />
        <button type="submit" name="do" value="login">Sign in</button>
        <button type="submit" name="do" value="company" class="quiet" formnovalidate>
          Use my company’s sign-in
        </button>
        <button type="submit" name="do" value="key" class="quiet" formnovalidate>
          Use a passkey alone
        </button>
        <button type="submit" name="do" value="abort" class="quiet" formnovalidate>Cancel</button>
      </form>
      ${companyLinks(companies)}`,
  )
}

function companyLinks(companies: readonly CompanyLink[]): Markup {
  if (companies.length === 0) return none
  const items = companies.map(({ name, href }) => html`<li><a href="${href}">${name}</a></li>`)
  return html`<h2>Or sign in with</h2>
    <ul>
      ${items}
    </ul>`
}

export interface CompanyPage {
  readonly base: string
  readonly name: string
  /** The host that the person is sent to. */
  readonly host: string
  readonly href: string
  /** Back to the page with the password. */
  readonly back: string
}

export function companyPage({ base, name, host, href, back }: CompanyPage): string {
  return page(
    base,
    `Continue with ${name}`,
    html`<p>
        Your company signs you in at <strong>${host}</strong>. Type your password there, never here.
      </p>
      <p><a class="button" href="${href}">Continue at ${host}</a></p>
      <p><a href="${back}">Use a password of this gateway instead</a></p>`,
  )
}

export interface ConsentPage {
  readonly base: string
  readonly action: string
  readonly csrf: string
  readonly client: string
  readonly email: string
}

export function consentPage({ base, action, csrf, client, email }: ConsentPage): string {
  return page(
    base,
    `Let ${client} act as you?`,
    html`<p>
        You are signed in as <strong>${email}</strong>. ${client} will be able to do everything you
        may do here, until you sign it out.
      </p>
      <form method="post" action="${action}">
        <input type="hidden" name="csrf" value="${csrf}" />
        <button type="submit" name="do" value="consent" autofocus>Continue</button>
        <button type="submit" name="do" value="abort" class="quiet">Cancel</button>
      </form>
      <p><a href="${base}/sign-out">Not you? Sign out first.</a></p>`,
  )
}

export interface CodePage {
  readonly base: string
  readonly xsrf: string
  readonly code: string
  readonly problem: Problem | null
}

export function codePage({ base, xsrf, code, problem }: CodePage): string {
  return page(
    base,
    'Enter the code',
    html`${problemBox(problem)}
      <form method="post" action="${base}/device">
        <input type="hidden" name="xsrf" value="${xsrf}" />
        <label for="user_code">The code shown where you asked to sign in</label>
        <input
          id="user_code"
          name="user_code"
          class="code"
          value="${code}"
          autocomplete="off"
          autocapitalize="characters"
          spellcheck="false"
          maxlength="20"
          required
          autofocus
        />
        <button type="submit">Continue</button>
      </form>`,
  )
}

export interface ConfirmPage {
  readonly base: string
  readonly xsrf: string
  readonly code: string
  readonly client: string
  /** Where the request came from, as far as can be told. */
  readonly address: string
  readonly agent: string
}

export function confirmPage({ base, xsrf, code, client, address, agent }: ConfirmPage): string {
  return page(
    base,
    'Did you ask to sign in?',
    html`<p>
        ${client} wants to act as you. Continue only if you started this yourself and see the same
        code there:
      </p>
      <p><strong class="code">${code}</strong></p>
      <dl>
        <dt>Asked from</dt>
        <dd>${address}</dd>
        <dt>Program</dt>
        <dd>${agent}</dd>
      </dl>
      <form method="post" action="${base}/device">
        <input type="hidden" name="xsrf" value="${xsrf}" />
        <input type="hidden" name="user_code" value="${code}" />
        <button type="submit" name="confirm" value="yes" autofocus>Yes, the code matches</button>
        <button type="submit" name="abort" value="yes" class="quiet">No, refuse it</button>
      </form>`,
  )
}

export function successPage(base: string, client: string): string {
  return page(
    base,
    'You are signed in',
    html`<p>${client} has what it needs. You can close this page and go on there.</p>`,
  )
}

export function signOutPage(base: string, csrf: string, email: string | null): string {
  const who = email === null ? html`<p>Nobody is signed in in this browser.</p>` : none
  const form = html`<p>You are signed in as <strong>${email ?? ''}</strong> in this browser.</p>
    <form method="post" action="${base}/sign-out">
      <input type="hidden" name="csrf" value="${csrf}" />
      <button type="submit" name="do" value="sign-out" autofocus>Sign out</button>
    </form>`
  return page(base, 'Sign out', email === null ? who : form)
}

export function signedOutPage(base: string): string {
  return page(
    base,
    'You are signed out',
    html`<p>
      Programs that you signed in by a code stay signed in until you sign them out:
      <code>sallyport logout</code>.
    </p>`,
  )
}

export interface ErrorPage {
  readonly base: string
  readonly title: string
  readonly message: string
  readonly nextStep: string
  readonly code: string
  readonly id: string
  /** A link or a form that takes the next step. */
  readonly way?: Markup | undefined
}

export function errorPage(shown: ErrorPage): string {
  const { base, title, message, nextStep, code, id, way = none } = shown
  return page(
    base,
    title,
    html`<div class="problem" role="alert"><p>${message}</p></div>
      <p><strong>Next step:</strong> ${nextStep}</p>
      ${way}
      <p class="id">Code: <code>${code}</code><br />Id: <code>${id}</code></p>`,
  )
}

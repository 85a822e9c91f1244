/**
 * A person with a browser, scripted: cookies as RFC 6265 has them, redirects followed, forms read from the page
 * and submitted by the button that says what is meant. It runs no script, so every page must work without.
 */
import { Agent, fetch } from 'undici'

export interface Page {
  readonly url: URL
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly title: string
  readonly forms: readonly Form[]
}

export interface Form {
  readonly action: URL
  readonly fields: Readonly<Record<string, string>>
  readonly buttons: readonly Button[]
}

interface Button {
  readonly name: string
  readonly value: string
  readonly label: string
}

interface Cookie {
  /** Cookies do not tell ports apart (RFC 6265 8.5). */
  readonly host: string
  readonly name: string
  readonly value: string
  readonly path: string
  readonly secure: boolean
}

export interface Browser extends AsyncDisposable {
  /** Opens an address and follows redirects, at most ten, on this origin only; the last page may lead elsewhere. */
  readonly open: (url: string | URL) => Promise<Page>
  /** Submits the form that has the button with this label, with some fields filled in. */
  readonly submit: (
    page: Page,
    button: string,
    fields?: Readonly<Record<string, string>>,
  ) => Promise<Page>
  /** A request as it is: no redirect followed; for tests of what a browser would not send. */
  readonly send: (url: string | URL, init: SendInit) => Promise<Page>
  readonly cookies: () => readonly string[]
}

export interface SendInit {
  readonly method: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

/** `anchor`: the root (PEM) that the browser trusts, or several. */
export function openBrowser(anchor: string): Browser {
  const agent = new Agent({ connect: { ca: anchor } })
  const jar: Cookie[] = []

  const send = async (target: string | URL, init: SendInit): Promise<Page> => {
    const url = new URL(target)
    const sent = jar.filter((cookie) => isSentTo(cookie, url))
    const response = await fetch(url, {
      method: init.method,
      redirect: 'manual',
      dispatcher: agent,
      headers: {
        accept: 'text/html,application/xhtml+xml,*/*;q=0.8',
        'user-agent': 'scripted browser',
        ...(sent.length === 0
          ? {}
          : { cookie: sent.map(({ name, value }) => `${name}=${value}`).join('; ') }),
        ...init.headers,
      },
      ...(init.body === undefined ? {} : { body: init.body }),
    })
    for (const line of response.headers.getSetCookie()) keep(jar, readCookie(line, url))
    const text = await response.text()
    const headers = new Headers([...response.headers])
    const title = decode(/<title>([^<]*)<\/title>/.exec(text)?.[1] ?? '')
    return { url, status: response.status, headers, text, title, forms: readForms(text, url) }
  }
  const follow = async (first: Page): Promise<Page> => {
    let page = first
    for (let hops = 0; hops < 10; hops++) {
      const location = page.headers.get('location')
      if (location === null) return page
      const next = new URL(location, page.url)
      if (next.origin !== first.url.origin) return page
      page = await send(next, { method: 'GET' })
    }
    throw new Error(`too many redirects, the last to ${page.url.href}`)
  }
  return {
    open: async (url) => follow(await send(url, { method: 'GET' })),
    async submit(page, label, fields = {}) {
      const has = (one: Form) => one.buttons.some((button) => button.label === label)
      const form = page.forms.find(has)
      const button = form?.buttons.find((one) => one.label === label)
      if (form === undefined || button === undefined)
        throw new Error(`no button "${label}" on "${page.title}" (${page.status}):\n${page.text}`)
      const named = button.name === '' ? {} : { [button.name]: button.value }
      const posted = await send(form.action, {
        method: 'POST',
        headers: {
          'content-type': 'application/x-www-form-urlencoded',
          origin: page.url.origin,
          'sec-fetch-site': 'same-origin',
        },
        body: new URLSearchParams({ ...form.fields, ...fields, ...named }).toString(),
      })
      return follow(posted)
    },
    send,
    cookies: () => jar.map(({ name }) => name),
    async [Symbol.asyncDispose]() {
      await agent.close()
    },
  }
}

export interface Approval {
  /** The address with the code in it, as the CLI prints it. */
  readonly url: string
  readonly email: string
  readonly password: string
}

/** Walks the device flow's pages to the end: code, comparison, sign-in (or consent). Gives the last page. */
export async function approveDevice(browser: Browser, approval: Approval): Promise<Page> {
  const code = await browser.open(approval.url)
  const compare = await browser.submit(code, 'Continue')
  const next = await browser.submit(compare, 'Yes, the code matches')
  if (next.title.startsWith('Sign in'))
    return browser.submit(next, 'Sign in', { email: approval.email, password: approval.password })
  return browser.submit(next, 'Continue')
}

function isSentTo(cookie: Cookie, url: URL): boolean {
  if (cookie.host !== url.hostname) return false
  if (cookie.secure && url.protocol !== 'https:') return false
  const { path } = cookie
  if (!url.pathname.startsWith(path)) return false
  return (
    path.endsWith('/') || url.pathname.length === path.length || url.pathname[path.length] === '/'
  )
}

function keep(jar: Cookie[], fresh: Cookie & { readonly gone: boolean }): void {
  const at = jar.findIndex(
    ({ host, name, path }) => host === fresh.host && name === fresh.name && path === fresh.path,
  )
  if (at >= 0) jar.splice(at, 1)
  if (!fresh.gone) jar.push(fresh)
}

function readCookie(line: string, url: URL): Cookie & { readonly gone: boolean } {
  const [pair = '', ...attributes] = line.split(';').map((part) => part.trim())
  const cut = pair.indexOf('=')
  const named = new Map(
    attributes.map((attribute) => {
      const [name = '', value = ''] = attribute.split('=', 2)
      return [name.toLowerCase(), value] as const
    }),
  )
  const expires = named.get('expires')
  const cookie = { name: pair.slice(0, cut), value: pair.slice(cut + 1) }
  const path = named.get('path') ?? '/'
  if (named.has('domain')) throw new Error(`a cookie for a whole domain: ${line}`)
  if (cookie.name.startsWith('__Host-') && (path !== '/' || !named.has('secure')))
    throw new Error(`a browser would refuse ${line} from ${url.href}`)
  const gone = expires !== undefined && Date.parse(expires) <= Date.now()
  return { ...cookie, host: url.hostname, path, secure: named.has('secure'), gone }
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#39;': "'",
}

/** The text that escaped markup shows. */
export function decode(text: string): string {
  return text.replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => ENTITIES[entity] ?? entity)
}

function attributesOf(tag: string): Readonly<Record<string, string>> {
  const found = [...tag.matchAll(/([a-z-]+)(?:="([^"]*)")?/g)]
  return Object.fromEntries(
    found.slice(1).map(([, name = '', value = '']) => [name, decode(value)]),
  )
}

function readForms(text: string, url: URL): readonly Form[] {
  return [...text.matchAll(/<form\b[^>]*>[\s\S]*?<\/form>/g)].map(([whole]) => {
    const tag = attributesOf(/<(form\b[^>]*)>/.exec(whole)?.[1] ?? '')
    const inputs = [...whole.matchAll(/<(input\b[^>]*)>/g)].map(([, input = '']) =>
      attributesOf(input),
    )
    const buttons = [...whole.matchAll(/<(button\b[^>]*)>([^<]*)<\/button\s*>/g)]
    return {
      action: new URL(tag['action'] ?? '', url),
      fields: Object.fromEntries(
        inputs.map((input) => [input['name'] ?? '', input['value'] ?? '']),
      ),
      buttons: buttons.map(([, button = '', label = '']) => {
        const { name = '', value = '' } = attributesOf(button)
        return { name, value, label: decode(label).replace(/\s+/g, ' ').trim() }
      }),
    }
  })
}

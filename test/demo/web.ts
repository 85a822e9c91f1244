/** A browser tab, as far as a web app behind a device needs one: redirects, host-only cookies, one name for loopback. */
import { request } from 'node:https'
import { expect } from './failure.ts'

export interface Answer {
  readonly url: string
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

const REDIRECTS_MAX = 5

export class Tab {
  readonly #ca: string
  /** Cookies by host, as a browser keeps those without a Domain attribute. */
  readonly #jar = new Map<string, Map<string, string>>()

  constructor(ca: string) {
    this.#ca = ca
  }

  /** GETs `url`, following redirects; the cookies of each host stay with that host. */
  async get(url: string): Promise<Answer> {
    let at = new URL(url)
    for (let hops = 0; hops <= REDIRECTS_MAX; hops++) {
      const answer = await this.#once(at)
      const location = answer.headers['location']
      if (answer.status < 300 || answer.status > 399 || typeof location !== 'string') return answer
      at = new URL(location, at)
    }
    expect(false, `at most ${REDIRECTS_MAX} redirects from ${url}`, 'more')
  }

  async #once(url: URL): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const jar = this.#jar.get(url.host) ?? new Map<string, string>()
    this.#jar.set(url.host, jar)
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
    const sent = request(url, {
      ca: this.#ca,
      agent: false,
      timeout: 10_000,
      headers: cookie === '' ? {} : { cookie },
      // RFC 6761 6.3: names under localhost are loopback, whatever the machine's resolver knows.
      lookup: (_name, options, done) => {
        if (options.all === true) done(null, [{ address: '127.0.0.1', family: 4 }])
        else done(null, '127.0.0.1', 4)
      },
    })
    sent.on('timeout', () => sent.destroy(new Error(`no answer from ${url.host}`)))
    sent.on('error', reject)
    sent.on('response', (answer) => {
      for (const line of answer.headers['set-cookie'] ?? []) keep(jar, line)
      let body = ''
      answer.setEncoding('utf8')
      answer.on('data', (text: string) => (body += text))
      answer.on('error', reject)
      answer.on('end', () =>
        resolve({ url: url.href, status: answer.statusCode ?? 0, headers: answer.headers, body }),
      )
    })
    sent.end()
    return promise
  }
}

function keep(jar: Map<string, string>, line: string): void {
  const [pair = ''] = line.split(';')
  const at = pair.indexOf('=')
  if (at > 0) jar.set(pair.slice(0, at).trim(), pair.slice(at + 1).trim())
}

/** HTTPS to one company's provider: its own root where the owner gave one, bounded in time and size, no redirect. */
import { rootCertificates } from 'node:tls'
import type { CustomFetch } from 'openid-client'
import { Agent, fetch } from 'undici'

const TIMEOUT_MS = 10_000
const MAX_ANSWER = 262_144

export interface IdpHttp extends AsyncDisposable {
  readonly fetch: CustomFetch
  /** The JSON at an https address. Throws where there is none. */
  readonly json: (url: string) => Promise<unknown>
  /** Lets what was asked be answered, then closes. */
  readonly close: () => Promise<void>
}

/** `ca`: PEM of the only root that counts; null: the public ones. */
export function openIdpHttp(ca: string | null): IdpHttp {
  const agent = new Agent({
    connect: { ca: ca === null ? [...rootCertificates] : [ca], timeout: TIMEOUT_MS },
    headersTimeout: TIMEOUT_MS,
    bodyTimeout: TIMEOUT_MS,
    maxResponseSize: MAX_ANSWER,
    connections: 8,
    keepAliveTimeout: 1_000,
  })
  const send: CustomFetch = async (url, { body, headers, method, signal }) => {
    if (!url.startsWith('https://')) throw new TypeError('a provider is spoken to by https only')
    const limit = AbortSignal.timeout(TIMEOUT_MS)
    const response = await fetch(url, {
      method,
      headers,
      redirect: 'error',
      dispatcher: agent,
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      ...(typeof body === 'string' || body instanceof URLSearchParams ? { body } : {}),
    })
    // The same interface under two names: undici's class and the global one of the same origin.
    return response as unknown as Response
  }
  return {
    fetch: send,
    async json(url) {
      const headers = { accept: 'application/json' }
      const response = await send(url, { method: 'GET', headers, body: null, redirect: 'manual' })
      if (response.status !== 200) throw new TypeError(`status ${response.status}`)
      return response.json()
    },
    close: () => agent.close(),
    [Symbol.asyncDispose]: () => agent.destroy(),
  }
}

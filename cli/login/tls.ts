/** HTTPS to one gateway whose root is pinned: no other CA of the machine counts, and no redirect is followed. */
import type { CustomFetch } from 'openid-client'
import { Agent, buildConnector, fetch } from 'undici'
import { dialTcp, proxyOut } from '../dial.ts'
import { VERSION } from '../version.ts'

const TIMEOUT_MS = 15_000

export interface PinnedHttp extends AsyncDisposable {
  readonly fetch: CustomFetch
  readonly agent: Agent
  /** Seconds that the gateway's clock is ahead of ours, by its last answer; differences up to 2 s are none. */
  readonly clockSkew: () => number
}

/** `anchor` is the PEM of the root; an answer has at most `answerMax` bytes. */
export function openPinnedHttp(anchor: string, answerMax = 1_048_576): PinnedHttp {
  const agent = new Agent({
    connect: proxyOut() === undefined ? { ca: anchor, timeout: TIMEOUT_MS } : throughProxy(anchor),
    headersTimeout: 30_000,
    bodyTimeout: 30_000,
    maxResponseSize: answerMax,
  })
  let skew = 0
  return {
    agent,
    clockSkew: () => skew,
    async fetch(url, { body, headers, method, signal }) {
      const response = await fetch(url, {
        method,
        // A person reads this name where the gateway asks whether it was they who started the sign-in.
        headers: { ...headers, 'user-agent': `sallyport/${VERSION}` },
        redirect: 'error',
        dispatcher: agent,
        ...(typeof body === 'string' || body instanceof URLSearchParams ? { body } : {}),
        ...(signal === undefined ? {} : { signal }),
      })
      skew = skewOf(response.headers.get('date')) ?? skew
      // The same interface under two names: undici's class and the global one of the same origin.
      return response as unknown as Response
    },
    async [Symbol.asyncDispose]() {
      await agent.close()
    },
  }
}

/** TLS on a connection that the proxy made. */
function throughProxy(anchor: string): buildConnector.connector {
  const secure = buildConnector({ ca: anchor, timeout: TIMEOUT_MS })
  return (options, callback) => {
    const host = options.hostname.replace(/^\[|\]$/g, '')
    const port = options.port === '' ? 443 : Number(options.port)
    dialTcp({ host, port }, AbortSignal.timeout(TIMEOUT_MS)).then(
      (httpSocket) => secure({ ...options, httpSocket }, callback),
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), null),
    )
  }
}

/** RFC 9110 6.6.1: Date has a resolution of one second, so a difference of one or two says nothing. */
export function skewOf(date: string | null): number | undefined {
  const then = Date.parse(date ?? '')
  if (Number.isNaN(then)) return undefined
  const difference = Math.round((then - Date.now()) / 1000)
  return Math.abs(difference) <= 2 ? 0 : difference
}

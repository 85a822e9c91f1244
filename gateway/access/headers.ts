/** What a forwarder may pass on, both ways (RFC 9110, section 7.6.1). Pure. */
import { APP_COOKIE, takeCookie } from './apps.ts'

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
/** Never towards the device: the body is framed anew, and nobody waits for a 100 that may not come. */
const OURS = new Set([
  'expect',
  'content-length',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'forwarded',
])

/** What the two ends need: naming these in Connection would drop it, and is how a hop is tricked into dropping it. */
const KEPT = new Set(['host', 'cookie', 'content-length', 'content-type', 'authorization'])
const NONE: ReadonlySet<string> = new Set()

/** The header names that a Connection header declares to be of this hop only; `raw` is names and values in turn. */
function declared(raw: readonly string[]): ReadonlySet<string> {
  let names: Set<string> | undefined
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? ''
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue
    for (const part of (raw[at + 1] ?? '').split(',')) {
      const one = part.trim().toLowerCase()
      if (!KEPT.has(one)) (names ??= new Set()).add(one)
    }
  }
  return names ?? NONE
}

/**
 * Request headers for the device: raw names and values in order, without hop-by-hop ones, without
 * our own cookie. `contentLength` is what Node parsed, null where the body is chunked or absent.
 */
export function requestHeaders(raw: readonly string[], contentLength: string | null): string[] {
  const dropped = declared(raw)
  const out: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? ''
    const value = raw[at + 1] ?? ''
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || OURS.has(lower) || dropped.has(lower)) continue
    if (lower === 'cookie') {
      const { rest } = takeCookie(value, APP_COOKIE)
      if (rest !== '') out.push(name, rest)
    } else out.push(name, value)
  }
  if (contentLength !== null) out.push('content-length', contentLength)
  return out
}

/** However it is spelt: browsers trim names, and read a cookie without one as the name in its value. */
function namesOurs(cookie: string): boolean {
  const [pair = ''] = cookie.split(';', 1)
  return pair.toLowerCase().includes(APP_COOKIE.toLowerCase())
}

/** Response headers for the browser: cookies lose their Domain, so that no app reaches its neighbours. */
export function responseHeaders(raw: readonly string[]): string[] {
  const dropped = declared(raw)
  const out: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? ''
    const value = raw[at + 1] ?? ''
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || dropped.has(lower)) continue
    if (lower !== 'set-cookie') out.push(name, value)
    else if (!namesOurs(value))
      out.push(
        name,
        value
          .split(';')
          .filter((part) => !/^\s*domain\s*(=|$)/i.test(part))
          .join(';'),
      )
  }
  return out
}
